//! Was the same asked a moment ago, of the same state? Then the same is answered: an entity tag names everything an answer
//! is made from, so an answer kept under its tag stays right for as long as the tag comes up.

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{OptionsBuilder, Weighter};
use shared::limits::{REPEATED_ANSWER_BYTES_MAX, REPEATED_ANSWERS_BYTES};

use super::ranges::Whole;
use crate::entity_tag::EntityTag;

/// Bytes beside the body: headers, tag, the table's entry.
const BESIDE_BYTES: usize = 1024;

#[derive(Debug, Clone)]
struct Bytes;

impl Weighter<EntityTag, Whole> for Bytes {
    fn weight(&self, _: &EntityTag, whole: &Whole) -> u64 {
        (whole.body.len() + BESIDE_BYTES) as u64
    }
}

/// Answers by their tags; those asked for least make room.
pub struct RepeatedAnswers(Cache<EntityTag, Whole, Bytes>);

impl Default for RepeatedAnswers {
    fn default() -> RepeatedAnswers {
        let options = OptionsBuilder::new()
            .estimated_items_capacity(REPEATED_ANSWERS_BYTES / REPEATED_ANSWER_BYTES_MAX)
            .weight_capacity(REPEATED_ANSWERS_BYTES as u64)
            .build()
            .expect("both capacities are given");
        RepeatedAnswers(Cache::with_options(options, Bytes, Default::default(), DefaultLifecycle::default()))
    }
}

impl RepeatedAnswers {
    /// The answer that has `tag`, if it is kept.
    pub fn get(&self, tag: &EntityTag) -> Option<Whole> {
        self.0.get(tag)
    }

    /// Keeps an answer that is not too large for it.
    pub fn keep(&self, tag: &EntityTag, whole: &Whole) {
        if whole.body.len() > REPEATED_ANSWER_BYTES_MAX {
            return;
        }
        self.0.insert(tag.clone(), whole.clone());
        metrics::gauge!("trueup_repeated_answers_bytes").set(self.0.weight() as f64);
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
    fn bytes_are_bounded_and_large_answers_are_not_kept() {
        let answers = RepeatedAnswers::default();
        let tag = |n: usize| EntityTag::named(&n.to_string());
        answers.keep(&tag(0), &whole(REPEATED_ANSWER_BYTES_MAX + 1));
        assert!(answers.get(&tag(0)).is_none());
        answers.keep(&tag(1), &whole(10));
        assert_eq!(answers.get(&tag(1)).map(|whole| whole.body.len()), Some(10));
        for n in 2..1_000 {
            answers.keep(&tag(n), &whole(REPEATED_ANSWER_BYTES_MAX));
        }
        assert!(answers.0.weight() <= REPEATED_ANSWERS_BYTES as u64);
        assert!(answers.0.len() > REPEATED_ANSWERS_BYTES / REPEATED_ANSWER_BYTES_MAX / 2, "room is used");
    }
}
