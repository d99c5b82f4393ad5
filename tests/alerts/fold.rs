//! Folds events in log order, independently of the program: which alerts are raised when a sum passes a threshold, and what
//! batch runs make of them.

use std::collections::{BTreeMap, BTreeSet};

/// An accepted event. Times are in milliseconds, amounts in cents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub id: String,
    pub at: i64,
    pub user: String,
    pub amount: i64,
}

/// What the fold expects of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    pub state: &'static str,
    pub times: u64,
}

/// One alert on the sum of amounts per key.
#[derive(Debug)]
pub struct AlertFold {
    threshold: i64,
    /// Length of the windows; `None`: one over all time.
    window_ms: Option<i64>,
    delay_ms: i64,
    lateness_ms: i64,
    watermark: Option<i64>,
    log: Vec<Event>,
    /// Sums of the last batch run, and of the live events since.
    exact: BTreeMap<String, i64>,
    live: BTreeMap<String, i64>,
    pub records: BTreeMap<String, Expected>,
    /// How often runs have confirmed, withdrawn and corrected.
    pub judged: [usize; 3],
}

impl AlertFold {
    pub fn new(threshold: i64, window_ms: Option<i64>, delay_ms: i64, lateness_ms: i64) -> AlertFold {
        AlertFold {
            threshold,
            window_ms,
            delay_ms,
            lateness_ms,
            watermark: None,
            log: Vec::new(),
            exact: BTreeMap::new(),
            live: BTreeMap::new(),
            records: BTreeMap::new(),
            judged: [0; 3],
        }
    }

    fn start(&self, at: i64) -> Option<i64> {
        self.window_ms.map(|window| at.div_euclid(window) * window)
    }

    fn key(&self, event: &Event) -> String {
        match self.start(event.at) {
            // Keys are in alphabetical order of their columns: user_id, window_start.
            Some(start) => format!("{} {}", event.user, super::fraud::time(start)),
            None => event.user.clone(),
        }
    }

    /// Folds the next event of the log.
    pub fn push(&mut self, event: Event) {
        let end = self.start(event.at).zip(self.window_ms).map(|(start, window)| start + window);
        let is_late = end.zip(self.watermark).is_some_and(|(end, watermark)| end + self.lateness_ms <= watermark);
        self.watermark = self.watermark.max(Some(event.at - self.delay_ms));
        if !is_late {
            let key = self.key(&event);
            *self.live.entry(key.clone()).or_default() += event.amount;
            let total = self.exact.get(&key).unwrap_or(&0) + self.live[&key];
            if total > self.threshold {
                self.raise(key);
            }
        }
        self.log.push(event);
    }

    fn raise(&mut self, key: String) {
        match self.records.get_mut(&key) {
            None => {
                self.records.insert(key, Expected { state: "raised", times: 1 });
            }
            Some(record) if record.state == "withdrawn" => {
                *record = Expected { state: "raised", times: record.times + 1 };
            }
            Some(_) => {}
        }
    }

    /// What a batch run over the whole log decides: every event once, late ones included.
    pub fn run(&mut self) {
        let mut ids = BTreeSet::new();
        let mut exact: BTreeMap<String, i64> = BTreeMap::new();
        for event in &self.log {
            if ids.insert(&event.id) {
                *exact.entry(self.key(event)).or_default() += event.amount;
            }
        }
        let before = std::mem::replace(&mut self.exact, exact);
        self.live.clear();
        let holds = |sums: &BTreeMap<String, i64>, key: &String| sums.get(key).is_some_and(|sum| *sum > self.threshold);
        for (key, record) in &mut self.records {
            if record.state == "raised" {
                let is_exact = holds(&self.exact, key);
                record.state = if is_exact { "confirmed" } else { "withdrawn" };
                self.judged[usize::from(!is_exact)] += 1;
            }
        }
        for key in self.exact.keys().filter(|key| holds(&self.exact, key) && !holds(&before, key)) {
            match self.records.get_mut(key) {
                None => {
                    self.judged[2] += 1;
                    self.records.insert(key.clone(), Expected { state: "corrected", times: 1 });
                }
                Some(record) if record.state == "withdrawn" => {
                    self.judged[2] += 1;
                    *record = Expected { state: "corrected", times: record.times + 1 };
                }
                Some(_) => {}
            }
        }
    }

    /// The exact sum of a key at the last run.
    pub fn exact_sum(&self, key: &str) -> i64 {
        self.exact.get(key).copied().unwrap_or(0)
    }

    pub fn expected(&self) -> BTreeMap<String, (String, u64)> {
        let text = |record: &Expected| (record.state.to_owned(), record.times);
        self.records.iter().map(|(key, record)| (key.clone(), text(record))).collect()
    }
}
