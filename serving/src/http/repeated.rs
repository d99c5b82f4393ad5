//! Was the same asked a moment ago, of the same state? Then the same is answered: an entity tag names everything an answer
//! is made from, so an answer kept under its tag stays right for as long as the tag comes up.

use std::collections::HashMap;

use parking_lot::Mutex;
use shared::limits::{REPEATED_ANSWER_BYTES_MAX, REPEATED_ANSWERS_BYTES};

use super::entity_tag::EntityTag;
use super::ranges::Whole;

/// Answers by their tags; those not asked for the longest go first.
#[derive(Default)]
pub struct RepeatedAnswers(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    answers: HashMap<EntityTag, (Whole, u64)>,
    bytes: usize,
    /// Counts what was asked, to tell what was asked last.
    asked: u64,
}

impl RepeatedAnswers {
    /// The answer that has `tag`, if it is kept.
    pub fn get(&self, tag: &EntityTag) -> Option<Whole> {
        let mut kept = self.0.lock();
        kept.asked += 1;
        let now = kept.asked;
        let (whole, last) = kept.answers.get_mut(tag)?;
        *last = now;
        Some(whole.clone())
    }

    /// Keeps an answer that is not too large for it.
    pub fn keep(&self, tag: &EntityTag, whole: &Whole) {
        let bytes = whole.body.len();
        if bytes > REPEATED_ANSWER_BYTES_MAX {
            return;
        }
        let mut kept = self.0.lock();
        kept.asked += 1;
        let now = kept.asked;
        if let Some((before, _)) = kept.answers.insert(tag.clone(), (whole.clone(), now)) {
            kept.bytes -= before.body.len();
        }
        kept.bytes += bytes;
        while kept.bytes > REPEATED_ANSWERS_BYTES {
            let oldest = kept.answers.iter().min_by_key(|(_, (_, last))| *last).map(|(tag, _)| tag.clone());
            let Some((gone, _)) = oldest.and_then(|tag| kept.answers.remove(&tag)) else { break };
            kept.bytes -= gone.body.len();
        }
        metrics::gauge!("trueup_repeated_answers_bytes").set(kept.bytes as f64);
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;

    use super::*;

    fn whole(bytes: usize) -> Whole {
        Whole { headers: HeaderMap::new(), body: vec![b'x'; bytes].into() }
    }

    #[test]
    fn what_was_not_asked_for_the_longest_goes_first_and_large_answers_are_not_kept() {
        let answers = RepeatedAnswers::default();
        let tag = |n: usize| EntityTag::named(&n.to_string());
        answers.keep(&tag(0), &whole(REPEATED_ANSWER_BYTES_MAX + 1));
        assert!(answers.get(&tag(0)).is_none());
        let most = REPEATED_ANSWERS_BYTES / REPEATED_ANSWER_BYTES_MAX;
        for n in 1..=most {
            answers.keep(&tag(n), &whole(REPEATED_ANSWER_BYTES_MAX));
        }
        assert!(answers.get(&tag(1)).is_some());
        answers.keep(&tag(most + 1), &whole(REPEATED_ANSWER_BYTES_MAX));
        assert!(answers.get(&tag(1)).is_some() && answers.get(&tag(2)).is_none());
        // Once more under the same tag takes no more room.
        answers.keep(&tag(1), &whole(REPEATED_ANSWER_BYTES_MAX));
        assert!(answers.get(&tag(3)).is_some());
    }
}
