//! Renders the metrics for Prometheus: counters that the layers record, and gauges read at every scrape.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use metrics::{counter, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use parking_lot::Mutex;
use shared::clock::Clock;
use shared::control::{NoSinks, SinkState, Sinks, SourceState, SourceStatus, Streams};
use shared::ids::{Partition, StreamName, ViewName};
use shared::lookup::table::Lookups;
use shared::published::Views;
use shared::time::MICROS_PER_SECOND;
use shared::vital::Vitals;
use speed::mailbox::ViewStatus;
use speed::service::Speed;
use tikv_jemalloc_ctl::{epoch, stats};

use crate::metric_names;

/// Interval at which the size of the speed layer's state is read. A read costs the speed workers some time.
const STATE_EVERY: Duration = Duration::from_secs(5);

/// The state sizes of all views, by stream and partition.
type SpeedStates = Vec<(StreamName, Partition, Vec<ViewStatus>)>;

/// Renders all metrics in the text format of Prometheus.
pub struct MetricsRenderer {
    recorder: PrometheusHandle,
    streams: Arc<dyn Streams>,
    views: Arc<Views>,
    states: Arc<Mutex<SpeedStates>>,
    clock: Arc<dyn Clock>,
    sinks: Arc<dyn Sinks>,
    lookups: Lookups,
}

/// Installs the process-wide recorder of metrics. Call this before any layer starts. If a recorder is installed already (by
/// another server in the same process), the new one records nothing.
pub fn install_recorder() -> PrometheusHandle {
    let builder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &metric_names::DURATION_BUCKETS_SECONDS)
        .expect("the list of bounds is not empty");
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    let _ = metrics::set_global_recorder(recorder);
    metric_names::describe();
    handle
}

impl MetricsRenderer {
    /// Makes a renderer of what `recorder` records and of the gauges of the given layers.
    pub fn new(
        recorder: PrometheusHandle,
        streams: Arc<dyn Streams>,
        views: Arc<Views>,
        speed: &Arc<Speed>,
        clock: Arc<dyn Clock>,
        vitals: &Vitals,
    ) -> MetricsRenderer {
        let states = Arc::default();
        let refresh = refresh_states(recorder.clone(), Arc::downgrade(speed), Arc::clone(&states));
        vitals.spawn_task("state metrics", refresh);
        MetricsRenderer {
            recorder,
            streams,
            views,
            states,
            clock,
            sinks: Arc::new(NoSinks),
            lookups: Lookups::default(),
        }
    }

    /// Shows the sinks as well.
    pub fn with_sinks(self, sinks: Arc<dyn Sinks>) -> MetricsRenderer {
        MetricsRenderer { sinks, ..self }
    }

    /// Shows the versions of rows that views look up as well.
    pub fn with_lookups(self, lookups: Lookups) -> MetricsRenderer {
        MetricsRenderer { lookups, ..self }
    }

    /// Renders all metrics.
    pub fn render(&self) -> String {
        gauge!("trueup_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        self.set_stream_metrics();
        self.set_lookup_metrics();
        self.set_version_metrics();
        self.set_sink_metrics();
        self.set_state_metrics();
        set_memory_metrics();
        self.recorder.render()
    }

    fn set_lookup_metrics(&self) {
        for table in self.lookups.tables() {
            let (status, name) = (table.status(), table.table().name.to_string());
            gauge!("trueup_lookup_versions", "table" => name.clone()).set(status.versions as f64);
            gauge!("trueup_lookup_bytes", "table" => name.clone()).set(status.bytes as f64);
            counter!("trueup_lookup_forgotten_total", "table" => name).absolute(status.forgotten);
        }
    }

    fn set_stream_metrics(&self) {
        for stream in self.streams.list() {
            for p in &stream.partitions {
                let labels = [("stream", stream.name.to_string()), ("partition", p.partition.to_string())];
                gauge!("trueup_log_head_offset", &labels).set(p.head.0 as f64);
                gauge!("trueup_log_start_offset", &labels).set(p.log_start.0 as f64);
                gauge!("trueup_archived_offset", &labels).set(p.archived.0 as f64);
                gauge!("trueup_log_bytes", &labels).set(p.log_bytes as f64);
                if let Some(rows) = p.rows {
                    gauge!("trueup_table_rows", &labels).set(rows.count as f64);
                    gauge!("trueup_table_bytes", &labels).set(rows.bytes as f64);
                }
                for (reader, bytes) in &p.backlog_bytes {
                    let [stream, partition] = labels.clone();
                    let labels = [stream, partition, ("reader", reader.clone())];
                    gauge!("trueup_log_backlog_bytes", &labels).set(*bytes as f64);
                }
                counter!("trueup_events_accepted_total", &labels).absolute(p.accepted);
                counter!("trueup_events_duplicate_total", &labels).absolute(p.duplicates);
                counter!("trueup_events_late_total", &labels).absolute(p.late);
                counter!("trueup_events_ahead_total", &labels).absolute(p.ahead);
                if let Some(watermark) = p.watermark {
                    let seconds = watermark.0 as f64 / MICROS_PER_SECOND as f64;
                    gauge!("trueup_watermark_timestamp_seconds", &labels).set(seconds);
                }
            }
            gauge!("trueup_quarantine_lines", "stream" => stream.name.to_string()).set(stream.quarantine.kept as f64);
            for (quantile, ms) in stream.lateness.iter().flat_map(|lateness| &lateness.quantiles_ms) {
                let labels = [("stream", stream.name.to_string()), ("q", quantile.clone())];
                gauge!("trueup_disorder_seconds", &labels).set(ms / 1000.0);
            }
            if let Some(source) = &stream.source {
                set_source_metrics(&stream.name, source);
            }
            counter!("trueup_events_rejected_total", "stream" => stream.name.to_string()).absolute(stream.rejected);
        }
    }

    fn set_version_metrics(&self) {
        for published in self.views.all() {
            if let Some(version) = &published.version {
                let view = published.view.name.to_string();
                gauge!("trueup_batch_version", "view" => view.clone()).set(version.version as f64);
                let age = (self.clock.now().0 - version.published_at.0) as f64 / MICROS_PER_SECOND as f64;
                gauge!("trueup_batch_age_seconds", "view" => view).set(age);
            }
        }
    }

    fn set_sink_metrics(&self) {
        for sink in self.sinks.list() {
            let name = sink.name.to_string();
            let is_running = f64::from(u8::from(sink.state == SinkState::Running));
            gauge!("trueup_sink_running", "sink" => name.clone()).set(is_running);
            gauge!("trueup_sink_epoch", "sink" => name.clone()).set(sink.epoch as f64);
            gauge!("trueup_sink_rows", "sink" => name.clone()).set(sink.rows as f64);
            gauge!("trueup_sink_lag_events", "sink" => name.clone()).set(sink.lag as f64);
            if let Some(at) = sink.committed_at {
                let seconds = at.0 as f64 / MICROS_PER_SECOND as f64;
                gauge!("trueup_sink_committed_timestamp_seconds", "sink" => name).set(seconds);
            }
        }
    }

    fn set_state_metrics(&self) {
        for (stream, partition, views) in self.states.lock().iter() {
            // A view has two definitions while the first version of a changed definition is being computed.
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
    }
}

/// Sets what the allocator says of the memory of this process.
fn set_memory_metrics() {
    // The statistics are those of the last advance.
    if epoch::advance().is_err() {
        return;
    }
    for (name, bytes) in [
        ("trueup_memory_allocated_bytes", stats::allocated::read()),
        ("trueup_memory_resident_bytes", stats::resident::read()),
    ] {
        if let Ok(bytes) = bytes {
            gauge!(name).set(bytes as f64);
        }
    }
}

/// Sets the gauges of a stream that reads a topic or an outbox.
fn set_source_metrics(stream: &StreamName, source: &SourceStatus) {
    let is_reading = matches!(source.state, SourceState::Reading | SourceState::Paused);
    gauge!("trueup_source_connected", "stream" => stream.to_string()).set(f64::from(u8::from(is_reading)));
    counter!("trueup_source_missed_total", "stream" => stream.to_string()).absolute(source.missed);
    if let Some(bytes) = source.retained_bytes {
        gauge!("trueup_source_retained_bytes", "stream" => stream.to_string()).set(bytes as f64);
    }
    for partition in &source.partitions {
        let labels = [("stream", stream.to_string()), ("partition", partition.partition.to_string())];
        if let Some(position) = partition.position {
            gauge!("trueup_source_position", &labels).set(position as f64);
        }
        if let Some(lag) = partition.lag {
            gauge!("trueup_source_lag", &labels).set(lag as f64);
        }
    }
}

/// Refreshes `states`, and adds up the samples of histograms, until the speed layer stops.
async fn refresh_states(recorder: PrometheusHandle, speed: Weak<Speed>, states: Arc<Mutex<SpeedStates>>) {
    loop {
        tokio::time::sleep(STATE_EVERY).await;
        // The recorder keeps every sample until then, or until a scrape: without one, memory would grow with the queries.
        recorder.run_upkeep();
        let Some(speed) = speed.upgrade() else { return };
        let status = speed.status().await;
        *states.lock() = status;
    }
}
