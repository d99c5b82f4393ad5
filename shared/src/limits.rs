//! Defines every limit of the system, with its unit, its default and the reason for it.
//!
//! A limit is never silent: reaching it causes an error or a counted, documented consequence.

// I9: each limit is defined here, with its unit and default.
/// Largest request body of events, in bytes after decompression. Larger bodies are refused with 413.
pub const EVENT_BODY_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest single event, in bytes of JSON. Longer lines are rejected, their neighbours are not.
pub const EVENT_LINE_BYTES_MAX: usize = 1024 * 1024;
/// Rejections described in one answer; further ones are only counted.
pub const REJECTIONS_LISTED_MAX: usize = 100;
/// Event ids remembered per partition, counted back from the newest event. A duplicate further back enters the log
/// and is removed by batch. Memory: about 40 bytes each.
pub const DEDUP_HORIZON_EVENTS: u64 = 1 << 22;
/// Idempotency keys remembered per partition.
pub const IDEMPOTENCY_KEYS_MAX: usize = 10_000;
/// Longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 256;
/// Event bytes waiting for a partition's log writer. Beyond it a request gets 429.
pub const WRITER_QUEUE_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Seconds a client is asked to wait after 429.
pub const RETRY_AFTER_SECONDS: u64 = 1;
/// Most bytes written with one fdatasync.
pub const GROUP_COMMIT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Size at which a log segment is closed and the next one started, in bytes.
pub const LOG_SEGMENT_BYTES: u64 = 128 * 1024 * 1024;
/// Rows waiting for a speed worker or the archiver of a partition before its log writer has to wait.
pub const HANDOFF_QUEUE_ROWS_MAX: usize = 2_000_000;
/// Rows folded together at once.
pub const FOLD_ROWS_MAX: usize = 32_768;
/// Events before the seam that are read again after a restart, to know which sessions were under way. A session of
/// which none of them is part may cause an event to be excluded; batch includes it.
pub const SESSION_WARM_UP_EVENTS: u64 = 1 << 22;
/// Rows after which the archiver writes a file without waiting for more.
pub const ARCHIVE_FILE_ROWS: usize = 1_000_000;
/// Rows, and bytes, that compaction gives a file of the archive. Files that have half of either are left as they are.
pub const COMPACTION_FILE_ROWS: u64 = 1_000_000;
pub const COMPACTION_FILE_BYTES: u64 = 128 * 1024 * 1024;
/// Neighbouring small files of a date and partition before background compaction rewrites them: fewer cost little.
pub const COMPACTION_FILES_MIN: usize = 8;
/// Pause between two looks for small files, per stream, in milliseconds.
pub const COMPACTION_EVERY_MS: u64 = 300_000;
/// Longest time an event waits for its archive file, in milliseconds.
pub const ARCHIVE_WAIT_MS: u64 = 30_000;
/// Milliseconds between two times at which the owner of a lake says that it is alive, and looks whether it still is the
/// owner.
pub const OWNER_SEEN_EVERY_MS: u64 = 2_000;
/// Batch rows held in memory as columns, in bytes over all views.
pub const BATCH_CACHE_BYTES: usize = 2 * 1024 * 1024 * 1024;
/// Memory that a batch run may take, in bytes. What does not fit is computed in several passes.
pub const BATCH_MEMORY_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// Least memory that a batch run can be given, in bytes.
pub const BATCH_MEMORY_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// Versions of a view that can be asked for, the newest included, where its `versions_kept` says nothing else.
pub const VERSIONS_KEPT: u32 = 10;
/// Most versions a view may keep: their notes are held in memory once an old version is queried.
pub const VERSIONS_KEPT_MAX: u32 = 10_000;
/// Age at which an unneeded file is deleted, in milliseconds: longer than any reader or run of another process, which
/// are unknown here.
pub const VACUUM_AGE_MS: u64 = 24 * 3_600_000;
/// Shortest time between two vacuums of a view by itself, in milliseconds: each lists the folder of its table.
pub const VACUUM_EVERY_MS: u64 = 3_600_000;
/// Old versions whose lists of files are held in memory, over all views, the last asked for.
pub const PAST_VERSIONS_CACHED: usize = 32;
/// Milliseconds that a query may take, from the request to the answer; then it stops, and 504 is the answer.
pub const QUERY_TIME_MS: u64 = 30_000;
/// Bytes that a query may add up: its merged rows and their groups. What does not fit gets 413.
pub const QUERY_MEMORY_BYTES: u64 = 512 * 1024 * 1024;
/// Queries made at the same time, per core: more would only share it. Small ones, answered where they come in, do not
/// count.
pub const QUERIES_AT_ONCE_PER_CORE: usize = 2;
/// Queries that wait for their turn. Beyond it a request gets 429.
pub const QUERIES_WAITING_MAX: usize = 1_000;
/// Bytes of what queries made of batch versions, kept for the next such query.
pub const BATCH_SHARES_BYTES: usize = 256 * 1024 * 1024;
/// Rows of an answer when the query names no limit.
pub const QUERY_ROWS_DEFAULT: usize = 10_000;
/// Most rows a query may ask for.
pub const QUERY_ROWS_MAX: usize = 1_000_000;
/// Milliseconds after its last use for which a Parquet answer that is read in pieces stays the same.
pub const RANGED_ANSWER_IDLE_MS: u64 = 10_000;
/// Bytes of the Parquet answers kept for that, over all clients. A larger one is computed again for every range.
pub const RANGED_ANSWERS_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Pause between two looks of a live answer when the request names none, in milliseconds; shortest and longest.
pub const LIVE_EVERY_DEFAULT_MS: u64 = 1_000;
pub const LIVE_EVERY_MIN_MS: u64 = 100;
pub const LIVE_EVERY_MAX_MS: u64 = 3_600_000;
/// Most rows of a live answer.
pub const LIVE_ROWS_MAX: usize = 50_000;
/// Readers of live answers at the same time.
pub const LIVE_SUBSCRIBERS_MAX: usize = 10_000;
/// Different live answers at the same time, each of which is computed by itself.
pub const LIVE_FEEDS_MAX: usize = 200;
/// Bytes of past events that a live answer keeps for readers who come back.
pub const LIVE_KEPT_BYTES: usize = 4 * 1024 * 1024;
/// Events that may wait for a slow subscriber; one that is further behind gets a snapshot.
pub const LIVE_WAITING_EVENTS: usize = 32;
/// Milliseconds that a feed continues without a subscriber, so that one can resume.
pub const LIVE_IDLE_MS: u64 = 30_000;
/// Milliseconds of silence after which a subscriber gets a comment, to keep the connection open.
pub const LIVE_HEARTBEAT_MS: u64 = 15_000;
/// Bytes of answers that are kept to be given again while nothing they are made from has moved, and of the largest of
/// them.
pub const REPEATED_ANSWERS_BYTES: usize = 64 * 1024 * 1024;
pub const REPEATED_ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Deepest nesting of a SQL expression. Deeper ones are refused before they are lowered.
pub const SQL_DEPTH_MAX: usize = 64;
/// Most tokens of a definition file or a predicate, comments not counted. Bounds the memory and time of parsing.
pub const SQL_TOKENS_MAX: usize = 20_000;
/// Most tokens that can stand between two commas of an expression, summed over the parentheses around them. Chains of
/// operators make trees as deep as they are long; this keeps the parser's own trees from overflowing the stack.
pub const SQL_CHAIN_TOKENS_MAX: usize = 1_500;
/// Most nodes of one lowered expression: some SQL forms repeat an operand, and nesting them multiplies it.
pub const SQL_NODES_MAX: usize = 20_000;
/// Longest LIKE pattern, in characters.
pub const SQL_PATTERN_CHARS_MAX: usize = 1_000;
/// Longest definition file, in bytes.
pub const SQL_BYTES_MAX: usize = 1024 * 1024;
/// Most windows that one event can fall into. An answer reads as many rows for one event.
pub const WINDOWS_PER_EVENT_MAX: i64 = 10_000;
/// Most panes that a window can be the sum of. Computing one window merges as many states.
pub const PANES_PER_WINDOW_MAX: i64 = 100_000;
/// Most values that TOP_K can show.
pub const TOP_K_MAX: u16 = 1_000;
/// Most partitions of a stream.
pub const PARTITIONS_MAX: u32 = 256;
/// Differing rows kept with a reconciliation.
pub const COMPARE_ROWS_MAX: usize = 1_000;
/// Runs remembered per view, across restarts.
pub const RUNS_KEPT: usize = 1_000;
/// Runs that a list has when the request names no limit.
pub const RUNS_DEFAULT: usize = 100;
/// Milliseconds after which a failed run is tried again for the first time; each further time it is twice as long, and
/// up to a fifth more or less, so that many views do not come back at once.
pub const RUN_RETRY_FIRST_MS: u64 = 30_000;
/// Longest such time.
pub const RUN_RETRY_MAX_MS: u64 = 30 * 60_000;
/// Most times that a run is tried. After that only its schedule or a request starts the next.
pub const RUN_ATTEMPTS_MAX: u32 = 8;
/// Reconciliations kept per view, in the table of its reconciliations; older ones leave it.
pub const RECONCILIATIONS_KEPT: usize = 1_000;
/// Reconciliations that an answer on drift lists when the request names no limit.
pub const DRIFT_VERSIONS_DEFAULT: usize = 50;
/// Most reconciliations that an answer on drift lists.
pub const DRIFT_VERSIONS_MAX: usize = 200;
/// Late events kept in memory per stream to be listed, and as many of those too far ahead; older ones are in the
/// archive only.
pub const LISTED_EVENTS_KEPT: usize = 10_000;
/// Bytes of columns those events may take, per stream and list.
pub const LISTED_EVENTS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Events of the log's tail that are looked at again after a restart, per stream, to list and to measure lateness.
pub const LATENESS_REREAD_EVENTS: u64 = 1 << 20;
/// Rejected lines kept per stream.
pub const QUARANTINE_LINES_MAX: usize = 10_000;
/// Memory for the quarantine of a stream, in bytes; on disk up to twice as many.
pub const QUARANTINE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes kept of a rejected line; a longer one is marked as truncated.
pub const QUARANTINE_TEXT_BYTES_MAX: usize = 4096;
/// Rejected lines kept of one request; further ones are only counted.
pub const QUARANTINE_REQUEST_LINES_MAX: usize = 1_000;
/// Entries of a list (late, ahead, quarantine) when the request names no limit.
pub const LIST_ENTRIES_DEFAULT: usize = 100;
/// Most entries of a list that a request may ask for.
pub const LIST_ENTRIES_MAX: usize = 1_000;
/// Milliseconds a connection may take to send its next request's headers; an idle one is closed after as long.
pub const HEADER_READ_TIMEOUT_MS: u64 = 60_000;
/// Milliseconds a stopping server waits for requests under way.
pub const SHUTDOWN_WAIT_MS: u64 = 20_000;
/// Milliseconds a connection to a remote store may take to come about.
pub const STORE_CONNECT_TIMEOUT_MS: u64 = 5_000;
/// Milliseconds one request to a remote store may take, its answer included. Large objects go in parts, each a request.
pub const STORE_REQUEST_TIMEOUT_MS: u64 = 30_000;
/// Milliseconds during which a request to a remote store that failed is tried again; then the error counts, and who
/// asked (a run, an archiver) tries again later.
pub const STORE_RETRY_MS: u64 = 20_000;
/// Most attempts after the first within that time.
pub const STORE_RETRIES_MAX: usize = 8;
/// Size of the parts in which large objects are sent to a remote store, in bytes. Smaller objects are sent whole.
pub const STORE_PART_BYTES: usize = 16 * 1024 * 1024;
/// Parts of one object sent at the same time.
pub const STORE_PARTS_AT_ONCE: usize = 4;
/// Bytes that archive files of a remote lake may take on this machine while a run reads them.
pub const SPOOL_BYTES: u64 = 16 * 1024 * 1024 * 1024;
/// Gaps between needed bytes of a remote file up to this size are read over, which is cheaper than a further request.
pub const SPOOL_GAP_BYTES: u64 = 64 * 1024;
/// Most bytes of a remote file asked for at once.
pub const SPOOL_PIECE_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes at the end of a remote file that are asked for first: most footers fit.
pub const SPOOL_FOOTER_BYTES: u64 = 64 * 1024;
/// Requests for remote files under way at the same time.
pub const SPOOL_REQUESTS: usize = 8;
