//! Which figures does a monitoring system see? Counters as they happen, and gauges read when it asks.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use metrics::gauge;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use parking_lot::Mutex;
use shared::clock::Clock;
use shared::control::Streams;
use shared::ids::{Partition, StreamName, ViewName};
use shared::published::Views;
use shared::time::MICROS_PER_SECOND;
use speed::mailbox::ViewStatus;
use speed::service::Speed;

/// How often the speed layer is asked how much it holds; asking is not free for it.
const STATE_EVERY: Duration = Duration::from_secs(5);

type States = Vec<(StreamName, Partition, Vec<ViewStatus>)>;

/// Renders all metrics in Prometheus' text format.
pub struct Figures {
    recorder: PrometheusHandle,
    streams: Arc<dyn Streams>,
    views: Arc<Views>,
    states: Arc<Mutex<States>>,
    clock: Arc<dyn Clock>,
}

/// Becomes the process' recorder of metrics, before any layer has something to record. If another one is installed already
/// (a second server in one process), this one sees nothing but its gauges' names.
pub fn record() -> PrometheusHandle {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _ = metrics::set_global_recorder(recorder);
    handle
}

impl Figures {
    /// What `recorder` recorded, and the gauges of what there is.
    pub fn new(
        recorder: PrometheusHandle,
        streams: Arc<dyn Streams>,
        views: Arc<Views>,
        speed: &Arc<Speed>,
        clock: Arc<dyn Clock>,
    ) -> Figures {
        let states = Arc::default();
        tokio::spawn(watch(Arc::downgrade(speed), Arc::clone(&states)));
        Figures { recorder, streams, views, states, clock }
    }

    /// All metrics at this moment.
    pub fn render(&self) -> String {
        gauge!("trueup_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        for stream in self.streams.list() {
            for p in &stream.partitions {
                let labels = [("stream", stream.name.to_string()), ("partition", p.partition.to_string())];
                gauge!("trueup_log_head_offset", &labels).set(p.head.0 as f64);
                gauge!("trueup_log_start_offset", &labels).set(p.log_start.0 as f64);
                gauge!("trueup_archived_offset", &labels).set(p.archived.0 as f64);
                gauge!("trueup_log_bytes", &labels).set(p.log_bytes as f64);
                gauge!("trueup_events_accepted", &labels).set(p.accepted as f64);
                gauge!("trueup_events_duplicate", &labels).set(p.duplicates as f64);
                gauge!("trueup_events_late", &labels).set(p.late as f64);
                gauge!("trueup_events_ahead", &labels).set(p.ahead as f64);
                if let Some(watermark) = p.watermark {
                    let seconds = watermark.0 as f64 / MICROS_PER_SECOND as f64;
                    gauge!("trueup_watermark_timestamp_seconds", &labels).set(seconds);
                }
            }
            gauge!("trueup_quarantine_lines", "stream" => stream.name.to_string()).set(stream.quarantine.kept as f64);
            for (quantile, ms) in stream.lateness.iter().flat_map(|lateness| &lateness.quantiles_ms) {
                let labels = [("stream", stream.name.to_string()), ("quantile", quantile.clone())];
                gauge!("trueup_disorder_seconds", &labels).set(ms / 1000.0);
            }
            gauge!("trueup_events_rejected", "stream" => stream.name.to_string()).set(stream.rejected as f64);
        }
        for published in self.views.all() {
            if let Some(version) = &published.version {
                let view = published.view.name.to_string();
                gauge!("trueup_batch_version", "view" => view.clone()).set(version.version as f64);
                let age = (self.clock.now().0 - version.published_at.0) as f64 / MICROS_PER_SECOND as f64;
                gauge!("trueup_batch_age_seconds", "view" => view).set(age);
            }
        }
        for (stream, partition, views) in self.states.lock().iter() {
            // A view is folded under two definitions while the first version of a changed one is computed.
            let mut sums: BTreeMap<&ViewName, (usize, usize, usize)> = BTreeMap::new();
            for view in views {
                let (definitions, rows, bytes) = sums.entry(&view.view).or_default();
                (*definitions, *rows, *bytes) = (*definitions + 1, *rows + view.rows, *bytes + view.bytes);
            }
            for (view, (definitions, rows, bytes)) in sums {
                let labels =
                    [("stream", stream.to_string()), ("partition", partition.to_string()), ("view", view.to_string())];
                gauge!("trueup_state_definitions", &labels).set(definitions as f64);
                gauge!("trueup_state_rows", &labels).set(rows as f64);
                gauge!("trueup_state_bytes", &labels).set(bytes as f64);
            }
        }
        self.recorder.render()
    }
}

/// Ends with the speed layer.
async fn watch(speed: Weak<Speed>, states: Arc<Mutex<States>>) {
    loop {
        tokio::time::sleep(STATE_EVERY).await;
        let Some(speed) = speed.upgrade() else { return };
        let found = speed.status().await;
        *states.lock() = found;
    }
}
