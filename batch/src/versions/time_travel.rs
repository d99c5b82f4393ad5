//! Finds versions of the past, so that queries can read them again: their files as the table's log lists them, under the
//! definition that computed them.

use std::collections::HashMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use lake::{Lake, LakeError, TablePath, VersionLease};
use parking_lot::Mutex;
use shared::ids::ViewName;
use shared::limits::PAST_VERSIONS_CACHED;
use shared::lookup::definition::JoinTable;
use shared::published::{PublishedView, Views};
use shared::readers::{Moment, PastError, PastReader, PastVersion};
use shared::stream::Stream;
use shared::time::Micros;
use shared::version::BatchVersion;

use crate::versions::kept::{KeptVersions, VersionIndex};
use crate::versions::load::{old_definition, version_files};

/// Finds versions of the past.
pub struct TimeTravel {
    lake: Lake,
    views: Arc<Views>,
    kept: Arc<VersionIndex>,
    cache: Mutex<PastVersionCache>,
}

/// Versions that were queried, with their files.
#[derive(Default)]
struct PastVersionCache {
    versions: HashMap<(ViewName, i64), (Arc<PublishedView>, u64)>,
    uses: u64,
}

impl PastVersionCache {
    fn get(&mut self, key: &(ViewName, i64)) -> Option<Arc<PublishedView>> {
        self.uses += 1;
        let (published, used) = self.versions.get_mut(key)?;
        *used = self.uses;
        Some(Arc::clone(published))
    }

    fn insert(&mut self, key: (ViewName, i64), published: Arc<PublishedView>) {
        self.uses += 1;
        self.versions.insert(key, (published, self.uses));
        while self.versions.len() > PAST_VERSIONS_CACHED {
            let oldest = self.versions.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| key.clone());
            oldest.map(|key| self.versions.remove(&key));
        }
    }
}

impl TimeTravel {
    /// Returns access to the kept versions of a process's views.
    pub fn new(lake: &Lake, views: &Arc<Views>, kept: &Arc<VersionIndex>) -> TimeTravel {
        TimeTravel { lake: lake.clone(), views: Arc::clone(views), kept: Arc::clone(kept), cache: Mutex::default() }
    }

    async fn find(&self, view: &ViewName, moment: Moment) -> Result<PastVersion, PastError> {
        let kept = self.kept.of(view).await.map_err(unreadable)?;
        let version = Arc::clone(choose(view, &kept, moment)?);
        let path = TablePath::view(view);
        // Kept versions can be leased, unless so many were published just now that this one is no longer kept.
        let lease = self.lake.leases().version(&path, version.version).ok_or_else(|| gone(moment, &kept))?;
        let now = self.views.get(view.as_str()).ok_or_else(|| PastError::Nothing(view.clone()))?;
        if let Some(present) = now.version.as_ref().filter(|present| present.version == version.version) {
            let version = Arc::clone(present);
            return Ok(PastVersion { published: now, version, lease: Box::new(lease) });
        }
        self.load(view, (&now.stream, &now.declared().joined_tables()), &version, lease).await
    }

    async fn load(
        &self,
        view: &ViewName,
        (stream, tables): (&Arc<Stream>, &[JoinTable]),
        version: &Arc<BatchVersion>,
        lease: VersionLease,
    ) -> Result<PastVersion, PastError> {
        let key = (view.clone(), version.version);
        let cached = self.cache.lock().get(&key);
        let published = match cached {
            Some(published) => published,
            None => {
                let not_understood = || PastError::NotUnderstood { view: view.clone(), version: version.version };
                let definition = old_definition(stream, tables, version).ok_or_else(not_understood)?;
                let table = self.kept.table(view).await.map_err(unreadable)?;
                let table = table.ok_or_else(|| PastError::Nothing(view.clone()))?;
                let snapshot = table.snapshot_at(version.version).await.map_err(unreadable)?;
                let files = version_files(&snapshot.files);
                let version = BatchVersion { files, ..version.as_ref().clone() };
                let published = PublishedView::version(Arc::new(definition), Arc::clone(stream), version);
                let published = Arc::new(published);
                self.cache.lock().insert(key, Arc::clone(&published));
                published
            }
        };
        let version = published.version.as_ref().map_or_else(|| Arc::clone(version), Arc::clone);
        Ok(PastVersion { published, version, lease: Box::new(lease) })
    }
}

impl PastReader for TimeTravel {
    fn at<'a>(&'a self, view: &'a ViewName, moment: Moment) -> BoxFuture<'a, Result<PastVersion, PastError>> {
        Box::pin(self.find(view, moment))
    }
}

fn unreadable(error: LakeError) -> PastError {
    PastError::Unreadable(error.to_string())
}

/// Returns the version that `moment` names.
fn choose<'k>(view: &ViewName, kept: &'k KeptVersions, moment: Moment) -> Result<&'k Arc<BatchVersion>, PastError> {
    let (Some(newest), Some(oldest)) = (kept.versions.first(), kept.versions.last()) else {
        return Err(PastError::Nothing(view.clone()));
    };
    match moment {
        Moment::Version(number) => match kept.get(number) {
            Some(version) => Ok(version),
            // The first commit creates the table, so versions start at 1.
            None if number < oldest.version && number > 0 && !kept.are_all => Err(gone(moment, kept)),
            None => Err(PastError::Unknown { view: view.clone(), version: number, newest: newest.version }),
        },
        Moment::Time(time) => match kept.versions.iter().find(|version| version.published_at <= time) {
            Some(version) => Ok(version),
            None if kept.are_all => {
                let (first, published_at) = (oldest.version, oldest.published_at);
                Err(PastError::Before { view: view.clone(), first, published_at })
            }
            None => Err(gone(moment, kept)),
        },
    }
}

fn gone(moment: Moment, kept: &KeptVersions) -> PastError {
    let what = match moment {
        Moment::Version(version) => format!("version {version}"),
        Moment::Time(time) => format!("what answered at {time}"),
    };
    let oldest = kept.versions.last();
    let (number, at) = oldest.map_or((0, Micros::MIN), |oldest| (oldest.version, oldest.published_at));
    PastError::Gone { what, oldest: number, published_at: at }
}

#[cfg(test)]
mod tests {
    use shared::ledger::Ledger;
    use shared::seam::Cut;

    use super::*;

    fn version(number: i64, published_at: i64) -> Arc<BatchVersion> {
        Arc::new(BatchVersion {
            comparison: None,
            comparison_file: None,
            work: None,
            view: "v".parse().expect("a name"),
            sql: String::new(),
            definition_hash: String::new(),
            version: number,
            run: String::new(),
            published_at: Micros(published_at),
            seam: Cut::start(1),
            ledger: Ledger::EMPTY,
            full: false,
            origin: Default::default(),
            late: 0,
            rows: 0,
            longest_session_us: 0,
            file_count: None,
            bytes: None,
            watermark: None,
            latest_event: None,
            retained_from: None,
            frozen_before: None,
            dropped_sessions_end: None,
            past_retention: 0,
            failed: Default::default(),
            erased: Default::default(),
            lookups: Default::default(),
            files: Vec::new(),
        })
    }

    #[test]
    fn times_and_numbers_select_the_version_served_then() {
        let view: ViewName = "v".parse().expect("a name");
        let some = KeptVersions {
            // Version 6 was written by another program.
            versions: vec![version(7, 70), version(5, 50), version(4, 40)],
            are_all: false,
            newest: 7,
        };
        let all = KeptVersions { are_all: true, ..some.clone() };
        let number = |kept: &KeptVersions, moment| choose(&view, kept, moment).map(|v| v.version);
        for (moment, expected) in [
            (Moment::Version(7), 7),
            (Moment::Version(4), 4),
            (Moment::Time(Micros(70)), 7),
            (Moment::Time(Micros(1_000)), 7),
            (Moment::Time(Micros(69)), 5),
            (Moment::Time(Micros(40)), 4),
        ] {
            assert_eq!(number(&some, moment), Ok(expected), "{moment:?}");
        }
        for before in [Moment::Version(3), Moment::Time(Micros(39))] {
            let gone = number(&some, before);
            assert!(matches!(gone, Err(PastError::Gone { oldest: 4, published_at: Micros(40), .. })), "{gone:?}");
        }
        assert!(matches!(number(&all, Moment::Version(3)), Err(PastError::Unknown { newest: 7, .. })));
        assert!(matches!(number(&all, Moment::Time(Micros(39))), Err(PastError::Before { first: 4, .. })));
        for never in [0, -1, 6, 8] {
            assert!(matches!(number(&some, Moment::Version(never)), Err(PastError::Unknown { .. })), "{never}");
        }
        let none = KeptVersions { versions: Vec::new(), are_all: true, newest: -1 };
        assert_eq!(number(&none, Moment::Version(1)), Err(PastError::Nothing(view.clone())));
    }

    #[test]
    fn recently_requested_versions_stay_in_memory() {
        let view: ViewName = "v".parse().expect("a name");
        let texts = [(
            "s".to_owned(),
            "CREATE STREAM s (at TIMESTAMP) WITH (event_time = 'at'); CREATE VIEW v AS SELECT COUNT(*) AS n FROM s;"
                .to_owned(),
        )];
        let mut definitions = shared::sql::parse_definitions(&texts).expect("right");
        let (stream, of) = (definitions.streams.remove(0), definitions.views.remove(0));
        let published = Arc::new(PublishedView::nothing(Arc::new(of), Arc::new(stream)));
        let mut cache = PastVersionCache::default();
        for number in 0..2 * PAST_VERSIONS_CACHED as i64 {
            cache.insert((view.clone(), number), Arc::clone(&published));
            assert!(cache.get(&(view.clone(), 0)).is_some(), "it is used all the time");
        }
        assert_eq!(cache.versions.len(), PAST_VERSIONS_CACHED);
        assert!(cache.get(&(view.clone(), 1)).is_none());
    }
}
