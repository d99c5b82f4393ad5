//! Names the test that drives each limit to it, or the reason why none does.

/// A limit with the file and the name of its test.
type Driven = (&'static str, &'static str, &'static str);

const DRIPPING: &str = "dripping_senders_hold_what_they_sent_for_a_while_and_others_are_served";
const BOMBS: &str = "bombs_and_endless_bodies_are_refused_within_the_budgets";
const LARGE_EVENTS: &str = "events_of_1_mib_on_many_connections_stay_within_the_budgets";
const UNREAD: &str = "a_thousand_readers_that_do_not_read_stay_within_the_budgets_and_others_are_served";
const HEAVY: &str = "heavy_queries_over_cold_batch_rows_wait_for_each_other_within_the_budgets";
const DATES: &str = "a_request_with_3000_dates_is_archived_within_the_budgets";
const SUBSCRIBERS: &str = "live_queries_and_their_subscribers_are_refused_beyond_their_numbers";
const KEYS: &str = "keys_are_forgotten_by_age_and_by_bytes_and_the_newest_are_kept_for_longer";
const FAILED: &str = "every_event_is_counted_once_and_touched";
const RANGES: &str = "near_ranges_are_joined_and_large_ones_cut";
const RETRIES: &str = "transient_failures_are_retried_with_growing_delays_up_to_a_limit";
const NESTING: &str = "nesting_is_limited_and_breadth_is_not";
const LONG_TEXTS: &str = "long_texts_are_refused_at_once";
const SUBSCRIPTIONS: &str = "subscribers_of_entities_and_alerts_are_refused_beyond_their_numbers_and_leave_room";
const ALERT_LISTS: &str = "alerts_are_listed_by_alert_and_state_and_pushed_after_an_id";
const DEAD_LETTERS: &str = "a_notice_is_retried_with_growing_pauses_and_then_given_up";

/// The tests.
pub const DRIVEN: &[Driven] = &[
    (
        "ERASURE_REFERENCE_BYTES_MAX",
        "tests/entities/erasures.rs",
        "an_erased_entity_is_nowhere_and_figures_are_those_without_it",
    ),
    ("EVENT_BODY_BYTES_MAX", "tests/bounds/endless_bodies.rs", BOMBS),
    ("EVENT_LINE_BYTES_MAX", "tests/bounds/large_events.rs", LARGE_EVENTS),
    (
        "TABLE_EVENTS_BYTES_MAX",
        "intake/src/decode/tests/tables.rs",
        "a_dictionary_that_repeats_long_texts_is_bounded_in_bytes",
    ),
    ("TABLE_COLUMNS_MAX", "intake/src/decode/tests/tables.rs", "a_csv_record_is_bounded_in_bytes_and_fields"),
    ("BODY_TIME_MS", "intake/src/http/body.rs", "a_dripping_body_is_refused_and_returns_its_share"),
    ("BODY_BYTES_PER_SECOND_MIN", "intake/src/http/body.rs", "every_byte_buys_time"),
    ("BODY_PAUSE_MS", "intake/src/http/body.rs", "a_dripping_body_is_refused_and_returns_its_share"),
    ("BODIES_BYTES_MAX", "tests/bounds/endless_bodies.rs", BOMBS),
    ("BODY_VALUES_MAX", "tests/bounds/endless_bodies.rs", BOMBS),
    (
        "REJECTIONS_LISTED_MAX",
        "intake/src/decode/tests.rs",
        "long_events_are_rejected_and_long_lists_of_rejections_cut",
    ),
    (
        "DEDUP_HORIZON_EVENTS",
        "intake/src/partition/tests.rs",
        "an_id_is_known_inside_the_horizon_and_forgotten_outside_it",
    ),
    ("ENTITIES_MAX", "tests/entities/appends.rs", "a_partition_with_all_its_entities_refuses_new_ones_only"),
    (
        "ENTITY_APPEND_EVENTS_MAX",
        "tests/entities/appends.rs",
        "an_append_is_accepted_as_a_whole_or_not_and_holds_events_of_its_entity_only",
    ),
    (
        "ENTITY_EVENTS_DEFAULT",
        "tests/entities/reading.rs",
        "an_entity_with_more_events_than_a_page_is_read_and_folded_in_pages",
    ),
    (
        "ENTITY_EVENTS_MAX",
        "tests/entities/reading.rs",
        "an_entity_with_more_events_than_a_page_is_read_and_folded_in_pages",
    ),
    ("IDEMPOTENCY_KEEP_MS", "intake/src/partition/keys.rs", KEYS),
    ("IDEMPOTENCY_KEYS_MIN", "intake/src/partition/keys.rs", KEYS),
    ("IDEMPOTENCY_BYTES_MAX", "intake/src/partition/keys.rs", KEYS),
    (
        "IDEMPOTENCY_KEY_BYTES_MAX",
        "intake/src/http/tests.rs",
        "idempotency_keys_are_submitted_with_the_fingerprint_of_the_decompressed_body",
    ),
    (
        "ALERT_QUEUE_BYTES_MAX",
        "shared/src/changed_rows.rs",
        "beyond_the_bound_a_mark_for_all_rows_stays_and_memory_is_released",
    ),
    ("ALERT_ROWS_AT_ONCE", "shared/src/changed_rows.rs", "rows_are_queued_once_and_handed_out_in_pieces"),
    ("ENTITY_INDEX_BYTES", "shared/src/partial/index_cache.rs", "beyond_the_bound_the_oldest_index_is_built_again"),
    ("ALERT_INDEX_BYTES", "shared/src/partial/index_cache.rs", "beyond_the_bound_the_oldest_index_is_built_again"),
    ("ALERT_SUBSCRIBERS_MAX", "serving/tests/limits.rs", SUBSCRIPTIONS),
    ("ENTITY_SUBSCRIBERS_MAX", "serving/tests/limits.rs", SUBSCRIPTIONS),
    ("ALERTS_KEPT", "alerts/src/book.rs", "beyond_the_limit_the_oldest_judged_record_is_forgotten"),
    ("ALERTS_DEFAULT", "tests/alerts/lists.rs", ALERT_LISTS),
    ("ALERTS_MAX", "tests/alerts/lists.rs", ALERT_LISTS),
    ("WEBHOOK_TIMEOUT_MS", "alerts/src/delivery.rs", DEAD_LETTERS),
    ("WEBHOOK_RETRY_FIRST_MS", "alerts/src/delivery.rs", DEAD_LETTERS),
    ("WEBHOOK_RETRY_MAX_MS", "alerts/src/delivery.rs", DEAD_LETTERS),
    ("WEBHOOK_ATTEMPTS_MAX", "alerts/src/delivery.rs", DEAD_LETTERS),
    ("WRITER_QUEUE_BYTES_MAX", "intake/src/partition/tests.rs", "a_full_queue_is_busy_until_the_writer_gets_on"),
    ("GROUP_COMMIT_BYTES_MAX", "tests/bounds/large_events.rs", LARGE_EVENTS),
    ("LOG_BUFFER_BYTES_KEPT", "tests/bounds/large_events.rs", LARGE_EVENTS),
    ("LOG_SEGMENT_BYTES", "tests/log_trimming.rs", "a_duplicate_beyond_the_horizon_is_removed_by_batch_and_named"),
    (
        "HANDOFF_QUEUE_BYTES_MAX",
        "shared/src/log_queue.rs",
        "beyond_the_bound_positions_are_kept_in_order_and_no_offset_is_skipped",
    ),
    (
        "ARCHIVE_BACKLOG_BYTES_MAX",
        "tests/bounds/lake_away.rs",
        "while_the_lake_is_away_memory_is_flat_up_to_the_bound_of_the_log_and_everything_is_archived_later",
    ),
    (
        "LIVE_STATE_BYTES_MAX",
        "tests/backlog.rs",
        "live_state_beyond_its_bound_refuses_events_until_a_run_has_published",
    ),
    (
        "BACKLOG_RETRY_AFTER_SECONDS",
        "tests/bounds/lake_away.rs",
        "while_the_lake_is_away_memory_is_flat_up_to_the_bound_of_the_log_and_everything_is_archived_later",
    ),
    ("FOLD_ROWS_MAX", "tests/bounds/many_dates.rs", DATES),
    ("ARCHIVE_FILE_BYTES", "tests/bounds/large_events.rs", LARGE_EVENTS),
    ("ARCHIVE_COMMIT_DATES", "tests/bounds/many_dates.rs", DATES),
    ("ARCHIVE_FILES_AT_ONCE", "tests/bounds/many_dates.rs", DATES),
    (
        "COMPACTION_FILE_ROWS",
        "batch/src/archive/compaction.rs",
        "neighbours_of_one_date_and_partition_become_one_file_up_to_the_target",
    ),
    (
        "COMPACTION_FILE_BYTES",
        "batch/src/archive/compaction.rs",
        "neighbours_of_one_date_and_partition_become_one_file_up_to_the_target",
    ),
    ("COMPACTION_FILES_MIN", "batch/src/archive/compaction.rs", "scheduled_compaction_rewrites_each_row_few_times"),
    ("BATCH_CACHE_BYTES", "tests/bounds/heavy_queries.rs", HEAVY),
    ("BATCH_MEMORY_BYTES", "tests/memory_limit.rs", "a_run_within_a_low_limit_gives_the_same_rows"),
    ("BATCH_MEMORY_BYTES_MIN", "src/settings.rs", "batch_memory_and_threads_are_limited"),
    ("VERSIONS_KEPT", "tests/versions.rs", "kept_versions_return_the_same_bytes_and_others_are_refused"),
    (
        "VACUUM_STAGED_AGE_MS",
        "shared/lake/src/tests/missing_files.rs",
        "vacuum_of_any_age_keeps_files_that_another_process_is_about_to_commit",
    ),
    (
        "CLOCK_AHEAD_MAX_MS",
        "batch/src/deletion_clock.rs",
        "no_sequence_of_steps_gets_more_than_a_day_ahead_of_the_time_that_passes",
    ),
    (
        "CLOCK_BELIEVED_AFTER_MS",
        "batch/src/deletion_clock.rs",
        "events_confirm_a_clock_and_so_does_a_day_without_another_step",
    ),
    ("PAST_VERSIONS_CACHED", "batch/src/versions/time_travel.rs", "recently_requested_versions_stay_in_memory"),
    ("QUERY_TIME_MS", "serving/tests/limits.rs", "a_query_beyond_its_limits_is_refused_with_an_alternative"),
    ("QUERY_MEMORY_BYTES", "tests/bounds/heavy_queries.rs", HEAVY),
    ("QUERIES_AT_ONCE_PER_CORE", "tests/bounds/heavy_queries.rs", HEAVY),
    ("QUERIES_QUEUED_MAX", "serving/src/admission.rs", "a_full_queue_refuses_and_a_long_wait_times_out"),
    ("BATCH_MERGE_CACHE_BYTES", "tests/bounds/heavy_queries.rs", HEAVY),
    ("QUERY_ROWS_DEFAULT", "serving/tests/limits.rs", "truncated_results_are_marked"),
    ("QUERY_ROWS_MAX", "serving/tests/rows.rs", "every_invalid_parameter_is_refused_with_the_reason"),
    (
        "RANGED_RESPONSES_BYTES_MAX",
        "serving/src/http/ranges.rs",
        "cached_responses_are_found_by_url_and_bounded_in_bytes",
    ),
    ("LIVE_EVERY_MIN_MS", "tests/live_queries.rs", "queries_without_live_results_are_refused_with_a_reason"),
    ("LIVE_EVERY_MAX_MS", "tests/live_queries.rs", "queries_without_live_results_are_refused_with_a_reason"),
    ("LIVE_ROWS_MAX", "tests/live_queries.rs", "queries_without_live_results_are_refused_with_a_reason"),
    ("LIVE_SUBSCRIBERS_MAX", "tests/bounds/live_subscribers.rs", SUBSCRIBERS),
    ("LIVE_FEEDS_MAX", "tests/bounds/live_subscribers.rs", SUBSCRIBERS),
    ("LIVE_REPLAY_BYTES", "serving/src/push/feed.rs", "a_slow_subscriber_gets_the_snapshot_and_continues_from_there"),
    ("LIVE_FEED_BYTES_MAX", "serving/src/push/feed.rs", "events_that_clients_do_not_read_stop_their_feed_at_its_limit"),
    ("LIVE_BYTES_MAX", "tests/bounds/unread_responses.rs", UNREAD),
    ("LIVE_COMPUTATIONS_SHARE", "serving/src/admission.rs", "live_queries_do_not_keep_other_queries_waiting"),
    (
        "RESPONSE_CACHE_BYTES",
        "serving/src/http/response_cache.rs",
        "bytes_are_bounded_and_large_responses_are_not_cached",
    ),
    (
        "CACHED_RESPONSE_BYTES_MAX",
        "serving/src/http/response_cache.rs",
        "bytes_are_bounded_and_large_responses_are_not_cached",
    ),
    ("SQL_DEPTH_MAX", "shared/src/sql/tests/hostile.rs", NESTING),
    ("SQL_TOKENS_MAX", "shared/src/sql/tests/hostile.rs", LONG_TEXTS),
    ("SQL_CHAIN_TOKENS_MAX", "shared/src/sql/tests/hostile.rs", NESTING),
    ("SQL_NODES_MAX", "shared/src/sql/tests/hostile.rs", NESTING),
    (
        "EVALUATED_TEXT_BYTES_MAX",
        "shared/src/evaluate/tests/bounds.rs",
        "texts_that_multiply_are_refused_before_they_are_built",
    ),
    ("EVALUATION_BYTES_MAX", "shared/src/evaluate/tests/bounds.rs", "large_results_are_evaluated_in_pieces"),
    ("FAILED_EVENTS_LISTED_MAX", "shared/src/failed_events.rs", FAILED),
    ("FAILED_SPANS_MAX", "shared/src/failed_events.rs", FAILED),
    ("SQL_PATTERN_CHARS_MAX", "shared/src/sql/tests/hostile.rs", LONG_TEXTS),
    ("SQL_BYTES_MAX", "shared/src/sql/tests/hostile.rs", LONG_TEXTS),
    ("WINDOWS_PER_EVENT_MAX", "shared/src/sql/tests/hostile.rs", "any_lengths_parse_or_are_refused"),
    ("PANES_PER_WINDOW_MAX", "shared/src/sql/tests/bad/windows_and_measures.rs", "wrong_windows_are_explained"),
    ("TOP_K_MAX", "shared/src/sql/tests/bad/windows_and_measures.rs", "wrong_measures_are_explained"),
    ("PARTITIONS_MAX", "shared/src/sql/tests/bad.rs", "wrong_streams_are_explained"),
    ("RUNS_KEPT", "batch/src/runs/queue/tests.rs", "finished_runs_are_limited_by_view_and_open_ones_are_kept"),
    ("RUN_RETRY_FIRST_MS", "batch/src/runs/queue/tests.rs", RETRIES),
    ("RUN_RETRY_MAX_MS", "batch/src/runs/retry.rs", "delays_double_up_to_the_longest_and_differ_by_run"),
    ("RUN_ATTEMPTS_MAX", "batch/src/runs/queue/tests.rs", RETRIES),
    ("LISTED_EVENTS_KEPT", "tests/lateness.rs", "lists_are_bounded_and_paged"),
    (
        "LISTED_EVENTS_BYTES_MAX",
        "intake/src/lateness/tests.rs",
        "memory_is_bounded_by_bytes_too_and_nothing_of_the_batch_is_held",
    ),
    (
        "LATENESS_REREAD_EVENTS",
        "intake/src/streams/tests.rs",
        "lateness_is_restored_after_a_restart_from_the_end_of_the_log",
    ),
    ("QUARANTINE_LINES_MAX", "tests/lateness.rs", "the_quarantine_is_bounded_in_lines_bytes_and_disk"),
    ("QUARANTINE_BYTES_MAX", "tests/lateness.rs", "the_quarantine_is_bounded_in_lines_bytes_and_disk"),
    ("QUARANTINE_TEXT_BYTES_MAX", "intake/src/decode/tests.rs", "kept_texts_of_rejected_events_are_bounded"),
    (
        "QUARANTINE_REQUEST_LINES_MAX",
        "intake/src/quarantine/tests.rs",
        "lines_beyond_those_kept_of_a_request_are_counted",
    ),
    ("LIST_ENTRIES_MAX", "tests/lateness.rs", "lists_are_bounded_and_paged"),
    ("HEADER_READ_TIMEOUT_MS", "tests/bounds/dripping_senders.rs", DRIPPING),
    ("CONNECTIONS_MAX", "src/listen/tests.rs", "connections_beyond_the_limit_are_refused_and_others_continue"),
    ("CONNECTION_BUFFER_BYTES_MAX", "tests/bounds/endless_bodies.rs", BOMBS),
    ("REQUEST_BODY_BYTES_MAX", "tests/bounds/endless_bodies.rs", BOMBS),
    ("REQUEST_BODY_TIME_MS", "serving/src/small_bodies.rs", "bodies_are_bounded_in_bytes_and_in_time"),
    ("DESCRIPTORS_RESERVED", "tests/descriptors.rs", "idle_readers_leave_the_files_that_the_log_needs"),
    (
        "REFUSALS_AT_ONCE",
        "tests/bounds/many_connections.rs",
        "a_flood_of_connections_is_refused_beyond_the_bound_and_those_that_are_open_are_served",
    ),
    ("WRITE_STALL_MS", "src/listen/paced_stream.rs", "a_write_that_the_client_does_not_read_fails"),
    ("WRITE_PROGRESS_BYTES", "src/listen/paced_stream.rs", "a_client_that_reads_a_few_bytes_now_and_then_is_too_slow"),
    ("LINGER_MS", "src/listen/tests.rs", "a_client_that_is_still_sending_gets_the_refusal"),
    ("RESPONSES_BYTES_MAX", "tests/bounds/unread_responses.rs", UNREAD),
    (
        "RESPONSE_BYTES_UNCOUNTED",
        "serving/src/response_budget.rs",
        "unread_responses_are_bounded_and_small_ones_always_pass",
    ),
    (
        "COMPRESSIONS_AT_ONCE_PER_CORE",
        "tests/bounds/compressed_responses.rs",
        "an_unread_compressed_response_costs_its_bytes_and_no_encoder",
    ),
    ("SESSION_MS", "auth/src/session.rs", "sessions_end_by_time_by_choice_and_by_number"),
    ("SESSIONS_MAX", "auth/src/session.rs", "sessions_end_by_time_by_choice_and_by_number"),
    ("TOKEN_CLOCK_SKEW_S", "auth/src/token/tests.rs", "claims_have_to_be_there_with_their_types_and_times"),
    ("TOKEN_REQUESTS_PER_S", "auth/src/rate.rs", "requests_beyond_a_rate_are_refused_until_the_next_window"),
    ("RATE_COUNTS_MAX", "auth/src/rate.rs", "counts_are_bounded_however_many_subjects_come"),
    ("TOKEN_BYTES_MAX", "auth/src/token/tests.rs", "the_key_decides_the_algorithm_and_every_signature_is_checked"),
    ("REQUEST_ID_BYTES_MAX", "auth/src/trail.rs", "ids_of_clients_are_kept_if_they_are_simple"),
    ("STORE_RETRY_MS", "tests/object_store.rs", "queries_and_ingest_survive_an_outage_of_the_store"),
    ("STORE_RETRIES_MAX", "tests/object_store.rs", "queries_and_ingest_survive_an_outage_of_the_store"),
    ("STORE_PART_BYTES", "shared/lake/src/verified_put/tests.rs", "large_objects_go_in_parts_and_arrive_whole"),
    ("STORE_PARTS_AT_ONCE", "shared/lake/src/verified_put/tests.rs", "large_objects_go_in_parts_and_arrive_whole"),
    (
        "PARQUET_PAGE_BYTES_MAX",
        "shared/lake/src/pages.rs",
        "a_page_that_would_take_more_memory_than_a_page_may_is_refused",
    ),
    ("SILENCES_MAX", "alerts/src/quiet.rs", "there_is_room_for_so_many_silences"),
    ("SILENCE_SECONDS_MAX", "tests/alerts/quiet.rs", "silences_that_mean_nothing_are_refused"),
    ("SPOOL_BYTES", "shared/lake/src/spool/tests.rs", "a_file_beyond_the_limit_is_refused_and_leaves_nothing"),
    ("SPOOL_GAP_BYTES", "shared/lake/src/spool/tests.rs", RANGES),
    ("SPOOL_PIECE_BYTES", "shared/lake/src/spool/tests.rs", RANGES),
];

const DEFAULT_LENGTH: &str = "a default, not a bound";
const PERIOD: &str = "a period, not a bound";
const ADVICE: &str = "advice to clients";

/// The reasons.
pub const NOT_DRIVEN: &[(&str, &str)] = &[
    ("ERASURES_AT_ONCE_MAX", "500 erasures that wait for one run, which takes a second"),
    ("SUBMISSION_BYTES_MAX", "the other limits of a body are reached before it"),
    ("CHECKED_FILES_MAX", "a cache: beyond it files are checked again"),
    ("RETRY_AFTER_SECONDS", ADVICE),
    (
        "SPEED_BACKLOG_BYTES_MAX",
        "a speed worker that is half a gigabyte behind cannot be made from outside; `tests/backlog.rs` drives the same code by the archive's backlog",
    ),
    ("LOG_READ_ATTEMPTS_MAX", "minutes of pauses; `tests/dead_layer.rs` shows what follows"),
    ("SESSION_WARM_UP_EVENTS", "a choice between time to start and late events; batch is exact whatever it is"),
    ("ARCHIVE_FILE_ROWS", "a size to aim for, not a bound; `ARCHIVE_FILE_BYTES` bounds the memory"),
    ("COMPACTION_EVERY_MS", PERIOD),
    ("ARCHIVE_WAIT_MS", PERIOD),
    ("OWNER_HEARTBEAT_MS", PERIOD),
    ("VERSIONS_KEPT_MAX", "10,000 runs; a definition beyond it is refused"),
    ("VACUUM_AGE_MS", "a period; `tests/versions.rs` and `tests/compaction.rs` shorten it"),
    ("VACUUM_EVERY_MS", PERIOD),
    ("RANGED_RESPONSE_IDLE_MS", PERIOD),
    ("LIVE_EVERY_DEFAULT_MS", DEFAULT_LENGTH),
    ("LIVE_IDLE_MS", PERIOD),
    ("LIVE_HEARTBEAT_MS", PERIOD),
    ("MEASURES_BYTES_MAX", "half a gigabyte of texts; the meter behind it is that of `EVALUATION_BYTES_MAX`"),
    ("COMPARE_ROWS_MAX", "a length of a list: the worst rows are kept"),
    ("RUNS_DEFAULT", DEFAULT_LENGTH),
    ("RECONCILIATIONS_KEPT", "1,000 runs of one view"),
    ("DRIFT_VERSIONS_DEFAULT", DEFAULT_LENGTH),
    ("DRIFT_VERSIONS_MAX", "a length of a list, checked like other parameters"),
    ("LIST_ENTRIES_DEFAULT", DEFAULT_LENGTH),
    ("FAILURE_SHOWN_MS", PERIOD),
    ("TLS_HANDSHAKE_TIMEOUT_MS", "ten seconds of silence; the connection then ends like every other"),
    ("AUDIT_PATH_BYTES_MAX", "a length of a text: the rest is cut"),
    ("AUDIT_QUEUE_ENTRIES_MAX", "needs a log that stands still; entries beyond it are counted"),
    ("AUDIT_BATCH_ENTRIES_MAX", "a size to aim for, not a bound"),
    ("SHUTDOWN_WAIT_MS", PERIOD),
    ("STORE_CONNECT_TIMEOUT_MS", "needs a network that drops packets"),
    ("STORE_REQUEST_TIMEOUT_MS", "shortened by the tests of `tests/object_store.rs`"),
    ("SPOOL_FOOTER_BYTES", "a size to aim for, not a bound"),
    ("SPOOL_REQUESTS", "a number of requests at the same time: others wait"),
];
