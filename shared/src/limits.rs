//! Lists every limit of the system with its unit, its default and its reason.
//!
//! A limit is never silent: reaching it gives an error or a counted, documented consequence (I9).

// I9: each limit is defined here, with its unit and default.

// == Requests with events ==

/// Largest request body of events, in bytes after decompression. Larger bodies are refused with 413.
pub const EVENT_BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest single event, in bytes of JSON. Longer lines are rejected, their neighbours are not.
pub const EVENT_LINE_BYTES_MAX: usize = 1024 * 1024;
/// Memory of the events of one body of Arrow or Parquet, in bytes. Dictionaries can make a small body large: beyond it the request is
/// refused with 413.
pub const TABLE_EVENTS_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Columns of a body of CSV, Arrow or Parquet. With more of them the request is refused with 400.
pub const TABLE_COLUMNS_MAX: usize = 10_000;
/// Milliseconds that a body of events may take, however small; larger ones have as much more as
/// [`BODY_BYTES_PER_SECOND_MIN`] gives them.
pub const BODY_TIME_MS: u64 = 60_000;
/// Least rate of a body of events, in bytes per second.
pub const BODY_BYTES_PER_SECOND_MIN: usize = 64 * 1024;
/// Longest pause between two pieces of a body of events, in milliseconds.
pub const BODY_PAUSE_MS: u64 = 30_000;
/// Bytes of all bodies of events being read or decoded. Beyond it a request gets 429.
pub const BODIES_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Most values of a body, its events times the columns of the stream: short events can have many columns. Larger bodies are
/// refused with 413.
pub const BODY_VALUES_MAX: usize = 32 * 1024 * 1024;
/// Memory of the decoded events of a body, in bytes. Larger bodies are refused with 413.
pub const SUBMISSION_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Rejections described in one response; further ones are only counted.
pub const REJECTIONS_LISTED_MAX: usize = 100;
/// Event ids remembered per partition, counted back from the newest event. A duplicate further back enters the log
/// and is removed by batch. Memory: about 40 bytes each.
pub const DEDUP_HORIZON_EVENTS: u64 = 1 << 22;
/// Entities of a partition whose last sequence is kept in memory, for streams with an entity; 28 to 56 bytes each. Beyond
/// it, events of new entities are refused with 507.
pub const ENTITIES_MAX: usize = 8 << 20;
/// Memory of the current rows of a partition of a table, in bytes: those of each row's values and 96 more. Beyond it, changes
/// that need more are refused with 507, and the reader of a topic waits; deletions are still accepted.
pub const TABLE_ROWS_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// Columns of the key of a table.
pub const KEY_COLUMNS_MAX: usize = 8;
/// Memory of the versions of a table's rows that views look up, in bytes: those of the columns that views read, and of what finds them by
/// key. Beyond it, the speed layer forgets the oldest superseded versions, and events that would see one find no row until the next run; a
/// run that needs more fails.
pub const LOOKUP_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// Different texts of a column that views look up, as long as it has a code of two bytes for each version. With more, it has the texts.
pub const LOOKUP_CODED_TEXTS_MAX: usize = 4_096;
/// Tables that a view can be joined with.
pub const JOINS_MAX: usize = 8;
/// Rows of a table in a response, if the request sets no limit.
pub const TABLE_ROWS_DEFAULT: usize = 1_000;
/// Most rows of a table that a response may have.
pub const TABLE_ROWS_MAX: usize = 10_000;
/// Bytes of rows after which a response ends early; `next` names the key to continue after.
pub const TABLE_PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Records of a topic that are applied to a table at once: each may replace a row of the largest size.
pub const TABLE_BATCH_RECORDS: usize = 250;
/// Events of one append to an entity. Larger appends are refused with 413.
pub const ENTITY_APPEND_EVENTS_MAX: usize = 10_000;
/// Appends in one request to `POST /v1/entities/{stream}`. Larger requests are refused with 413.
pub const ENTITY_APPENDS_MAX: usize = 10_000;
/// Events of an entity in a response, unless the request asks for another number.
pub const ENTITY_EVENTS_DEFAULT: usize = 1_000;
/// Most events of an entity in a response; further ones are on the next page.
pub const ENTITY_EVENTS_MAX: usize = 10_000;
/// Subscribers of the events of entities. Beyond it a subscription gets 503.
pub const ENTITY_SUBSCRIBERS_MAX: usize = 10_000;
/// Bytes of the indexes by key of batch rows, over all views with a row per entity, oldest first out.
pub const ENTITY_INDEX_BYTES: usize = 256 * 1024 * 1024;
/// Erased entities of a stream whose figures have not been recomputed. Beyond it, further erasures get 429.
pub const ERASURES_AT_ONCE_MAX: usize = 500;
/// Longest reference of an erasure.
pub const ERASURE_REFERENCE_BYTES_MAX: usize = 200;
/// Milliseconds for which an idempotency key is remembered.
pub const IDEMPOTENCY_KEEP_MS: u64 = 15 * 60_000;
/// Newest idempotency keys per partition that are remembered for longer.
pub const IDEMPOTENCY_KEYS_MIN: usize = 10_000;
/// Memory of the idempotency keys of a partition, in bytes; about 360 per key. Beyond it the oldest are forgotten early.
pub const IDEMPOTENCY_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 256;

// == Topics ==

/// Records of a topic that are decoded and written together, per partition.
pub const SOURCE_BATCH_RECORDS: usize = 20_000;
/// Bytes of records that are decoded and written together, per partition. A longer record is a batch of its own.
pub const SOURCE_BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of records of a topic that were polled and wait to be decoded, per stream. Beyond it the next poll waits, with its records.
pub const SOURCE_FETCHED_BYTES: usize = 16 * 1024 * 1024;
/// Batches of records of a topic that need not be durable before the next ones are decoded: the log writes and syncs several together.
pub const SOURCE_BATCHES_IN_FLIGHT: usize = 16;
/// Memory of the changes of a transaction that are held until its end, for a table with `transactions = 'whole'`, in bytes. Reading stops
/// with an error at a transaction with more; a snapshot with more becomes visible in parts.
pub const TRANSACTION_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Transactions of a topic that are remembered, for a table with `transactions = 'whole'`. What a connector writes again after it was
/// killed becomes visible together if it has no more than these, and one transaction after the other if it has.
pub const TRANSACTIONS_REMEMBERED: usize = 65_536;
/// Milliseconds before the first retry of a reader that failed; the pause doubles with every further one.
pub const SOURCE_RETRY_FIRST_MS: u64 = 100;
/// Longest pause before a retry, in milliseconds.
pub const SOURCE_RETRY_MAX_MS: u64 = 10_000;
/// Milliseconds between two reports of positions to the consumer group.
pub const SOURCE_COMMIT_EVERY_MS: u64 = 5_000;
/// Milliseconds between two looks for new partitions of a topic.
pub const SOURCE_TOPIC_CHECK_MS: u64 = 5_000;
/// Shortest wait of a reader of an outbox after it found nothing, in milliseconds.
pub const OUTBOX_POLL_MS: u64 = 200;

// == Log, speed layer and archive ==

/// Event bytes waiting for a partition's log writer. Beyond it a request gets 429.
pub const WRITER_QUEUE_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Seconds a client is asked to wait after 429.
pub const RETRY_AFTER_SECONDS: u64 = 1;
/// Most bytes written with one fdatasync.
pub const GROUP_COMMIT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Memory of the buffer for frames that a partition's log writer keeps, in bytes; a larger one is returned after use.
pub const LOG_BUFFER_BYTES_KEPT: usize = 64 * 1024 * 1024;
/// Size at which a log segment is closed and the next one started, in bytes.
pub const LOG_SEGMENT_BYTES: u64 = 128 * 1024 * 1024;
/// Memory of the batches that wait for a speed worker or for the archiver of a partition, in bytes. Beyond it they keep
/// positions and read the events from the log again.
pub const HANDOFF_QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of a partition's log that the archive may be behind, for example while the lake is away. Beyond it a request gets
/// 429.
pub const ARCHIVE_BACKLOG_BYTES_MAX: u64 = 32 * 1024 * 1024 * 1024;
/// Bytes of a partition's log that its speed worker may be behind. Beyond it a request gets 429.
pub const SPEED_BACKLOG_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// Memory of the live state of all views, in bytes. Beyond it, events of their streams get 429 until batch runs have
/// published.
pub const LIVE_STATE_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;
/// Seconds a client is asked to wait after 429 if the archive or the speed layer is behind.
pub const BACKLOG_RETRY_AFTER_SECONDS: u64 = 10;
/// Attempts of a speed worker to read events from the log, with growing pauses; then the process stops.
pub const LOG_READ_ATTEMPTS_MAX: u32 = 10;
/// Rows folded together at once.
pub const FOLD_ROWS_MAX: usize = 32_768;
/// Events before the seam that are read again after a restart, to recover open sessions. If a session has none of them,
/// an event that joins it may count as late; batch includes it anyway.
pub const SESSION_WARM_UP_EVENTS: u64 = 1 << 22;
/// Rows after which the archiver writes a file without waiting for more.
pub const ARCHIVE_FILE_ROWS: usize = 1_000_000;
/// Memory of a partition's pending rows, in bytes, after which the archiver writes a file without waiting for more.
pub const ARCHIVE_FILE_BYTES: usize = 128 * 1024 * 1024;
/// Dates of one commit of the archiver. Rows of more dates are divided, so that a crash loses only the last commit.
pub const ARCHIVE_COMMIT_DATES: usize = 200;
/// Files that the archiver of a partition writes at the same time.
pub const ARCHIVE_FILES_AT_ONCE: usize = 8;

// == Compaction and ownership ==

/// Rows that compaction gives a file of the archive. Files that have half of these rows or bytes are not rewritten.
pub const COMPACTION_FILE_ROWS: u64 = 1_000_000;
/// Bytes that compaction gives a file of the archive.
pub const COMPACTION_FILE_BYTES: u64 = 128 * 1024 * 1024;
/// Neighbouring small files of a date and partition before automatic compaction rewrites them: fewer do not matter.
pub const COMPACTION_FILES_MIN: usize = 8;
/// Pause between two searches for small files, per stream, in milliseconds.
pub const COMPACTION_EVERY_MS: u64 = 300_000;
/// Longest time an event waits for its archive file, in milliseconds.
pub const ARCHIVE_WAIT_MS: u64 = 30_000;
/// Milliseconds between two heartbeats of a lake's owner, which also check that it still is the owner.
pub const OWNER_HEARTBEAT_MS: u64 = 2_000;

// == Alerts ==

/// Bytes of changed rows that wait for the evaluation of alerts. Beyond it the evaluator visits every live row of a view.
pub const ALERT_QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Changed rows whose alerts are evaluated together.
pub const ALERT_ROWS_AT_ONCE: usize = 8_192;
/// Bytes of the indexes by key of batch rows, over all views with alerts, oldest first out.
pub const ALERT_INDEX_BYTES: usize = 256 * 1024 * 1024;
/// Records of alerts kept in memory and on disk. Beyond it the oldest one that a batch run has judged is forgotten, or the
/// oldest of all; the same alert of the same key may then be raised again.
pub const ALERTS_KEPT: usize = 100_000;
/// Notices of alerts that wait for their receivers. Beyond it the oldest one becomes a dead letter.
pub const ALERT_NOTICES_MAX: usize = 100_000;
/// Silences of alerts at the same time. Another one is refused with 400.
pub const SILENCES_MAX: usize = 1_000;
/// Longest silence, in seconds: 90 days. A longer one is refused with 400.
pub const SILENCE_SECONDS_MAX: u64 = 90 * 24 * 60 * 60;
/// Subscribers of alerts at the same time. Further ones are refused with 503.
pub const ALERT_SUBSCRIBERS_MAX: usize = 1_000;
/// Alerts of a list if the request sets no limit.
pub const ALERTS_DEFAULT: usize = 100;
/// Most alerts that a list may have.
pub const ALERTS_MAX: usize = 10_000;
/// Milliseconds that a webhook may take to answer.
pub const WEBHOOK_TIMEOUT_MS: u64 = 10_000;
/// Milliseconds before the first retry of a notice to a webhook; each further delay is twice as long.
pub const WEBHOOK_RETRY_FIRST_MS: u64 = 500;
/// Longest such delay.
pub const WEBHOOK_RETRY_MAX_MS: u64 = 60_000;
/// Attempts to deliver a notice to a webhook. After that it is a dead letter.
pub const WEBHOOK_ATTEMPTS_MAX: u32 = 10;

// == Sinks ==

/// Milliseconds between two epochs of a sink without `every`.
pub const SINK_EVERY_MS: u64 = 1_000;
/// Least such time.
pub const SINK_EVERY_MS_MIN: u64 = 20;
/// Bytes of changed rows that wait for the next epoch of a sink. Beyond it the sink visits every live row of its view.
pub const SINK_QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Rows of one epoch of a sink. More rows are written in several transactions, and the epoch ends with the last of them.
pub const SINK_EPOCH_ROWS_MAX: usize = 100_000;
/// Bytes of keys and values in one transaction of a sink. More are written in several transactions.
pub const SINK_TRANSACTION_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Rows that a sink visits and writes in one transaction when it visits all rows, or those of a batch version.
pub const SINK_ROWS_AT_ONCE: usize = 8_192;
/// Bytes of their keys.
pub const SINK_PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of rows of a batch version that a sink reads at once, those of one date at most. A date with more fails the epoch.
pub const SINK_READ_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Bytes of rows of open windows that a sink with `emit = 'final'` remembers. Beyond it the sink visits all rows when windows end.
pub const SINK_WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Rows of a topic that a sink remembers, to write only changes: about 16 bytes each, and 100 per group. Beyond it the sink
/// stops with an error.
pub const SINK_ROWS_MAX: usize = 2_000_000;
/// Events that a sink of a stream reads of each partition and writes in one transaction.
pub const SINK_EVENTS_AT_ONCE: usize = 16_384;
/// Bytes of events that it reads for one transaction, divided among the partitions; at least one batch of each.
pub const SINK_EVENT_BYTES_AT_ONCE: usize = 32 * 1024 * 1024;
/// Rows that a sink sends to a webhook in one request.
pub const SINK_REQUEST_ROWS_MAX: usize = 1_000;
/// Bytes of their keys and values. A longer row has a request of its own.
pub const SINK_REQUEST_BYTES_MAX: usize = 1024 * 1024;
/// Milliseconds before the first retry of a sink whose brokers failed, or whose webhook; each further delay is twice as long.
pub const SINK_RETRY_FIRST_MS: u64 = 200;
/// Longest such delay.
pub const SINK_RETRY_MAX_MS: u64 = 10_000;

// == Batch, versions and vacuum ==

/// Batch rows held in memory as columns, in bytes over all views.
pub const BATCH_CACHE_BYTES: usize = 2 * 1024 * 1024 * 1024;
/// Memory that a batch run may use, in bytes. Larger results are computed in several passes.
pub const BATCH_MEMORY_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// Least memory that a batch run can be given, in bytes.
pub const BATCH_MEMORY_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// Bytes to read from which a run of a view with `engine = 'auto'` is computed by Spark.
pub const SPARK_AUTO_BYTES: u64 = 10 * 1024 * 1024 * 1024;
/// Milliseconds during which a run tries to reach a server of Spark that does not answer, before it fails and is retried.
pub const SPARK_RECONNECT_MS: u64 = 60_000;
/// Bytes of a message from Spark. Results are not sent in messages.
pub const SPARK_MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Characters of the query that Spark is given for a view. Views with a longer one are refused for Spark.
pub const SPARK_QUERY_CHARS_MAX: usize = 1_000_000;
/// Versions of a view that can be queried, the newest included, unless its `versions_kept` says otherwise.
pub const VERSIONS_KEPT: u32 = 10;
/// Most versions a view may keep: their notes are held in memory after a query for an old one.
pub const VERSIONS_KEPT_MAX: u32 = 10_000;
/// Age at which an unused file is deleted, in milliseconds: longer than any reader or run of another process, which this one
/// cannot see.
pub const VACUUM_AGE_MS: u64 = 24 * 3_600_000;
/// Least age at which a file that no commit names is deleted, in milliseconds, whatever age a request names: a historical
/// ingest of another process writes its files some time before it commits them.
pub const VACUUM_STAGED_AGE_MS: u64 = 3_600_000;
/// Milliseconds that the clock may be ahead of what the time since the last check, the last published version, the last commit
/// of an archive and the events make plausible. Beyond it nothing is deleted by that clock.
pub const CLOCK_AHEAD_MAX_MS: u64 = 24 * 3_600_000;
/// Milliseconds after which a clock that is ahead, and stays so, is believed.
pub const CLOCK_BELIEVED_AFTER_MS: u64 = 24 * 3_600_000;
/// Shortest time between two automatic vacuums of a view, in milliseconds: each lists the folder of its table.
pub const VACUUM_EVERY_MS: u64 = 3_600_000;
/// Old versions whose lists of files are held in memory, over all views, least recently used first out.
pub const PAST_VERSIONS_CACHED: usize = 32;

// == Queries ==

/// Milliseconds that a query may take, from request to response; then it stops with 504.
pub const QUERY_TIME_MS: u64 = 30_000;
/// Bytes that a query may hold: its merged rows and their groups. Larger queries get 413.
pub const QUERY_MEMORY_BYTES: u64 = 512 * 1024 * 1024;
/// Queries that run at the same time, per core. Small ones, which run on the request's own thread, do not count.
pub const QUERIES_AT_ONCE_PER_CORE: usize = 2;
/// Queries that wait for admission. Beyond it a request gets 429.
pub const QUERIES_QUEUED_MAX: usize = 1_000;
/// Bytes of the batch merge cache: merged batch parts of queries, reused by the next such query.
pub const BATCH_MERGE_CACHE_BYTES: usize = 256 * 1024 * 1024;
/// Rows of a response if the query sets no limit.
pub const QUERY_ROWS_DEFAULT: usize = 10_000;
/// Most rows a query may ask for.
pub const QUERY_ROWS_MAX: usize = 1_000_000;
/// Milliseconds after its last use for which a Parquet response that is read in pieces stays the same.
pub const RANGED_RESPONSE_IDLE_MS: u64 = 10_000;
/// Bytes of the Parquet responses kept for that, over all clients. A larger one is computed again for every piece.
pub const RANGED_RESPONSES_BYTES_MAX: usize = 128 * 1024 * 1024;

// == Live queries ==

/// Pause between two polls of a live query if the request sets none, in milliseconds.
pub const LIVE_EVERY_DEFAULT_MS: u64 = 1_000;
/// Shortest such pause.
pub const LIVE_EVERY_MIN_MS: u64 = 100;
/// Longest such pause.
pub const LIVE_EVERY_MAX_MS: u64 = 3_600_000;
/// Most rows of a live query.
pub const LIVE_ROWS_MAX: usize = 50_000;
/// Subscribers of live queries at the same time.
pub const LIVE_SUBSCRIBERS_MAX: usize = 10_000;
/// Different live queries at the same time, each of which is computed separately.
pub const LIVE_FEEDS_MAX: usize = 200;
/// Bytes of sent events that a live query keeps for subscribers that are behind or reconnect. A subscriber that needs an
/// older event gets the whole result again.
pub const LIVE_REPLAY_BYTES: usize = 4 * 1024 * 1024;
/// Bytes that one live query may hold: its result, the hashes of its rows, and events that subscribers have not read yet.
/// At the limit it sends nothing until a subscriber has read or was disconnected.
pub const LIVE_FEED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes that all live queries together may hold. At the limit they send nothing, and new ones are refused with 503.
pub const LIVE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Live queries that are computed at the same time, for every four queries that may be: others wait for them.
pub const LIVE_COMPUTATIONS_SHARE: usize = 4;
/// Milliseconds that a live query continues without subscribers, which may reconnect.
pub const LIVE_IDLE_MS: u64 = 30_000;
/// Milliseconds of silence after which subscribers get a heartbeat.
pub const LIVE_HEARTBEAT_MS: u64 = 15_000;

// == Response cache ==

/// Bytes of the response cache: responses are reused while their data has not changed.
pub const RESPONSE_CACHE_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of the largest cached response.
pub const CACHED_RESPONSE_BYTES_MAX: usize = 1024 * 1024;

// == Definitions and expressions ==

/// Deepest nesting of a SQL expression. Deeper ones are refused before they are lowered.
pub const SQL_DEPTH_MAX: usize = 64;
/// Most tokens of a definition file or a predicate, comments not counted. Bounds the memory and time of parsing.
pub const SQL_TOKENS_MAX: usize = 20_000;
/// Most tokens that can stand between two commas of an expression, summed over the parentheses around them. Chains of
/// operators make trees as deep as they are long; this keeps the parser's own trees from overflowing the stack.
pub const SQL_CHAIN_TOKENS_MAX: usize = 1_500;
/// Most nodes of one lowered expression: some SQL forms repeat an operand, and nesting them multiplies it.
pub const SQL_NODES_MAX: usize = 20_000;
/// Longest text that an expression may build, in bytes. A query with a longer one gets 413; an event of a view whose
/// expressions build a longer one is excluded from that view and listed as failed; such a measure is NULL and flagged.
pub const EVALUATED_TEXT_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of the texts that expressions build for the rows evaluated at once. More rows are evaluated in several pieces; one
/// row that needs more is treated as one with too long a text.
pub const EVALUATION_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of the texts that the measures of one table may have while a run finishes them. Beyond it the run fails.
pub const MEASURES_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Failed events listed per view, and per view and partition since its last version.
pub const FAILED_EVENTS_LISTED_MAX: usize = 100;
/// Days with failed events that a view distinguishes. Beyond it neighbouring days count as one span.
pub const FAILED_SPANS_MAX: usize = 1_000;
/// Longest LIKE pattern, in characters.
pub const SQL_PATTERN_CHARS_MAX: usize = 1_000;
/// Longest definition file, in bytes.
pub const SQL_BYTES_MAX: usize = 1024 * 1024;
/// Most windows that one event can fall into. A query reads as many rows for one event.
pub const WINDOWS_PER_EVENT_MAX: i64 = 10_000;
/// Most panes that a window can be the sum of. Computing one window merges as many states.
pub const PANES_PER_WINDOW_MAX: i64 = 100_000;
/// Most values that TOP_K can show.
pub const TOP_K_MAX: u16 = 1_000;
/// Most partitions of a stream.
pub const PARTITIONS_MAX: u32 = 256;

// == Comparisons and runs ==

/// Differing rows kept with a reconciliation.
pub const COMPARE_ROWS_MAX: usize = 1_000;
/// Runs remembered per view, across restarts.
pub const RUNS_KEPT: usize = 1_000;
/// Runs of a list if the request sets no limit.
pub const RUNS_DEFAULT: usize = 100;
/// Milliseconds before the first retry of a failed run; each further delay is twice as long, and up to a fifth more or less,
/// so that many views do not retry at once.
pub const RUN_RETRY_FIRST_MS: u64 = 30_000;
/// Longest such delay.
pub const RUN_RETRY_MAX_MS: u64 = 30 * 60_000;
/// Most attempts of a run. After that only its schedule or a request starts the next.
pub const RUN_ATTEMPTS_MAX: u32 = 8;
/// Reconciliations kept per view, in the table of its reconciliations; older ones are deleted.
pub const RECONCILIATIONS_KEPT: usize = 1_000;
/// Reconciliations that a drift response lists if the request sets no limit.
pub const DRIFT_VERSIONS_DEFAULT: usize = 50;
/// Most reconciliations that a drift response lists.
pub const DRIFT_VERSIONS_MAX: usize = 200;

// == Lists of events ==

/// Late events kept in memory per stream to be listed, and as many events too far ahead; older ones are in the archive only.
pub const LISTED_EVENTS_KEPT: usize = 10_000;
/// Bytes of columns those events may take, per stream and list.
pub const LISTED_EVENTS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Events at the end of the log that are read again after a restart, per stream, to list and to measure lateness.
pub const LATENESS_REREAD_EVENTS: u64 = 1 << 20;
/// Rejected lines kept per stream.
pub const QUARANTINE_LINES_MAX: usize = 10_000;
/// Bytes that the kept rejected lines of a stream may use in memory; on disk up to twice as many.
pub const QUARANTINE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of a rejected line that are kept; the rest is cut and the entry is marked `truncated`.
pub const QUARANTINE_TEXT_BYTES_MAX: usize = 4096;
/// Rejected lines kept of one request; further ones are only counted.
pub const QUARANTINE_REQUEST_LINES_MAX: usize = 1_000;
/// Entries of a list (late, ahead, quarantine) if the request sets no limit.
pub const LIST_ENTRIES_DEFAULT: usize = 100;
/// Most entries of a list that a request may ask for.
pub const LIST_ENTRIES_MAX: usize = 1_000;

// == Connections, sessions and audit ==

/// Requests per second of each subject of JSON Web Tokens, unless `rates` in `[jwt]` of the settings says otherwise. Beyond it
/// the response is 429.
pub const TOKEN_REQUESTS_PER_S: u32 = 1_000;
/// Keys and subjects of tokens whose requests are counted at the same time. Beyond it, the count whose window ends first
/// starts again.
pub const RATE_COUNTS_MAX: usize = 100_000;
/// Milliseconds a connection may take to send its next request's headers (408 for the first one); an idle one is closed after
/// as long.
pub const HEADER_READ_TIMEOUT_MS: u64 = 60_000;
/// Milliseconds for which `/readyz` shows the failure of a layer before the process stops with it.
pub const FAILURE_SHOWN_MS: u64 = 1_000;
/// Milliseconds of a TLS handshake.
pub const TLS_HANDSHAKE_TIMEOUT_MS: u64 = 10_000;
/// Connections open at the same time, if the process may open enough files. Further ones get 503.
pub const CONNECTIONS_MAX: usize = 16_384;
/// Bytes that a connection buffers of the head of a request, or of a body in transit, before it stops reading; the piece it
/// reads last may double them. Longer heads get 431, or 414 if the path is too long.
pub const CONNECTION_BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Concurrent requests over one HTTP/2 connection. Further ones wait at the client.
pub const HTTP2_STREAMS_MAX: u32 = 32;
/// Bytes of one request's body that an HTTP/2 connection buffers before the client has to wait.
pub const HTTP2_STREAM_WINDOW_BYTES: u32 = 128 * 1024;
/// Bytes of the bodies of all requests together that an HTTP/2 connection buffers before the client has to wait.
pub const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;
/// Bytes of one response that an HTTP/2 connection buffers, and of the next piece of the response. If a client takes no
/// piece for [`WRITE_STALL_MS`], its connection is closed.
pub const HTTP2_PIECE_BYTES: usize = 16 * 1024;
/// Bytes of the headers of an HTTP/2 request. Longer ones get 431.
pub const HTTP2_HEADERS_BYTES_MAX: u32 = 16 * 1024;
/// Connections that an HTTP/2 connection counts as, because it buffers as much as they do. If fewer places are free, it
/// is closed.
pub const HTTP2_CONNECTION_PLACES: u32 = 16;
/// Largest body of a request that sends no events, in bytes: for a run, a vacuum, a login. Larger ones get 413.
pub const REQUEST_BODY_BYTES_MAX: usize = 64 * 1024;
/// Milliseconds that such a body may take. Then the request gets 408.
pub const REQUEST_BODY_TIME_MS: u64 = 10_000;
/// File descriptors kept for the log, the lake and the pages: connections never use them. Half of all if there are few.
pub const DESCRIPTORS_RESERVED: usize = 1_024;
/// Connections beyond the limit that are answered with 503 at the same time; more are closed without an answer.
pub const REFUSALS_AT_ONCE: usize = 64;
/// Milliseconds after which a connection is closed whose client reads less than [`WRITE_PROGRESS_BYTES`] of a response.
pub const WRITE_STALL_MS: u64 = 30_000;
/// Bytes that a client has to read within that time, once it lets the server wait.
pub const WRITE_PROGRESS_BYTES: usize = 16 * 1024;
/// Milliseconds for which a closed connection is read on, so that a client that is still sending gets the response.
pub const LINGER_MS: u64 = 5_000;
/// Bytes of responses being sent, over all connections, not counting small ones. Beyond it a request gets 503.
pub const RESPONSES_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Responses up to this many bytes do not count, nor do files of the pages, which are in memory once.
pub const RESPONSE_BYTES_UNCOUNTED: usize = 64 * 1024;
/// Responses that are compressed at the same time, per core: each takes a few MiB. Others wait for them.
pub const COMPRESSIONS_AT_ONCE_PER_CORE: usize = 2;
/// Milliseconds after which a session of a browser ends.
pub const SESSION_MS: u64 = 12 * 3_600_000;
/// Sessions of browsers open at the same time; beyond it the oldest one ends.
pub const SESSIONS_MAX: usize = 10_000;
/// Seconds by which the clocks of a token issuer and the server may differ.
pub const TOKEN_CLOCK_SKEW_S: u32 = 60;
/// Longest JSON Web Token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Longest request id that a client may choose, in bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 128;
/// Bytes of a path, and of a method, that the audit log keeps.
pub const AUDIT_PATH_BYTES_MAX: usize = 512;
/// Entries that wait for the audit log. Beyond it they are dropped and counted.
pub const AUDIT_QUEUE_ENTRIES_MAX: usize = 10_000;
/// Entries of the audit log that are written at once.
pub const AUDIT_BATCH_ENTRIES_MAX: usize = 1_000;
/// Milliseconds a stopping server waits for requests under way.
pub const SHUTDOWN_WAIT_MS: u64 = 20_000;

// == Remote stores ==

/// Milliseconds to connect to a remote store.
pub const STORE_CONNECT_TIMEOUT_MS: u64 = 5_000;
/// Milliseconds one request to a remote store may take, its response included. Large objects go in parts, each a request.
pub const STORE_REQUEST_TIMEOUT_MS: u64 = 30_000;
/// Milliseconds during which a request to a remote store that failed is retried; then the error counts, and the
/// caller (a run, an archiver) retries later.
pub const STORE_RETRY_MS: u64 = 20_000;
/// Most attempts after the first within that time.
pub const STORE_RETRIES_MAX: usize = 8;
/// Largest page of a Parquet file in a table or an import, in bytes once it is decompressed. Writers make pages of about a megabyte; a
/// file with a larger one is refused.
pub const PARQUET_PAGE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Local files of a table whose checked pages are remembered. With more of them, old ones are checked again when they are read.
pub const CHECKED_FILES_MAX: usize = 10_000;
/// Size of the parts in which large objects are sent to a remote store, in bytes. Smaller objects are sent whole.
pub const STORE_PART_BYTES: usize = 16 * 1024 * 1024;
/// Parts of one object sent at the same time.
pub const STORE_PARTS_AT_ONCE: usize = 4;
/// Bytes that archive files of a remote lake may take on this machine while a run reads them.
pub const SPOOL_BYTES: u64 = 16 * 1024 * 1024 * 1024;
/// Gaps between needed bytes of a remote file up to this size are read too, which is cheaper than another request.
pub const SPOOL_GAP_BYTES: u64 = 64 * 1024;
/// Most bytes of a remote file asked for at once.
pub const SPOOL_PIECE_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes at the end of a remote file that are asked for first: most footers fit.
pub const SPOOL_FOOTER_BYTES: u64 = 64 * 1024;
/// Requests for remote files under way at the same time.
pub const SPOOL_REQUESTS: usize = 8;
