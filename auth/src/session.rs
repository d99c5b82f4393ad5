//! Holds the sessions of browsers: each was opened with a key, and has its permissions as long as the key is valid.
//!
//! A session is known by the hash of a secret that only the cookie has. A second secret, which pages read and send in a
//! header with every change, proves that a request comes from a page of this server (CSRF).

use std::collections::HashMap;

use aws_lc_rs::constant_time;
use parking_lot::Mutex;
use shared::limits::{SESSION_MS, SESSIONS_MAX};
use shared::time::Micros;

use crate::key_file::KeyId;
use crate::secret::{Secret, SecretHash};

/// All open sessions. They end with the process.
#[derive(Debug, Default)]
pub struct Sessions(Mutex<HashMap<SecretHash, Session>>);

/// One session.
#[derive(Debug, Clone)]
pub struct Session {
    /// The key that it was opened with.
    pub key: KeyId,
    csrf: Secret,
    until: Micros,
}

/// The secrets of a new session.
#[derive(Debug)]
pub struct NewSession {
    pub id: Secret,
    pub csrf: Secret,
}

impl Session {
    /// Returns true if `token` is the one that only pages of this session know.
    pub fn has_csrf_token(&self, token: &str) -> bool {
        constant_time::verify_slices_are_equal(token.as_bytes(), self.csrf.reveal().as_bytes()).is_ok()
    }
}

impl Sessions {
    /// Opens a session. If there are too many, the oldest one ends.
    pub fn open(&self, key: KeyId, now: Micros) -> NewSession {
        let (id, csrf) = (Secret::random(), Secret::random());
        let session = Session { key, csrf: csrf.clone(), until: Micros(now.0 + SESSION_MS as i64 * 1_000) };
        let mut open = self.0.lock();
        open.retain(|_, session| session.until > now);
        if open.len() >= SESSIONS_MAX
            && let Some(oldest) = open.iter().min_by_key(|(_, session)| session.until).map(|(id, _)| id.clone())
        {
            open.remove(&oldest);
        }
        open.insert(id.hash(), session);
        NewSession { id, csrf }
    }

    /// Returns the session with this id, unless it has ended.
    pub fn find(&self, id: &str, now: Micros) -> Option<Session> {
        let hash = Secret::of(id).hash();
        self.0.lock().get(&hash).filter(|session| session.until > now).cloned()
    }

    /// Ends a session.
    pub fn close(&self, id: &str) {
        self.0.lock().remove(&Secret::of(id).hash());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_file::parse_key;

    #[test]
    fn sessions_end_by_time_by_choice_and_by_number() {
        let (key, _) = parse_key("trueup_ab_cd").expect("a key");
        let sessions = Sessions::default();
        let one = sessions.open(key.clone(), Micros(0));
        let found = sessions.find(one.id.reveal(), Micros(1)).expect("open");
        assert!(found.has_csrf_token(one.csrf.reveal()) && !found.has_csrf_token(one.id.reveal()));
        assert!(sessions.find(one.csrf.reveal(), Micros(1)).is_none());
        assert!(sessions.find(one.id.reveal(), Micros(SESSION_MS as i64 * 1_000)).is_none());
        let other = sessions.open(key.clone(), Micros(1));
        sessions.close(other.id.reveal());
        assert!(sessions.find(other.id.reveal(), Micros(2)).is_none());
        (0..SESSIONS_MAX).for_each(|_| drop(sessions.open(key.clone(), Micros(2))));
        assert!(sessions.find(one.id.reveal(), Micros(2)).is_none(), "the oldest one ended");
        assert_eq!(sessions.0.lock().len(), SESSIONS_MAX);
    }
}
