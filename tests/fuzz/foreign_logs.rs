//! Delta logs as other programs write them, after the protocol's examples.

use serde_json::{Value, json};

use crate::bundle::BundledFile;

const SCHEMA: &str = r#"{"type":"struct","fields":[{"name":"at","type":"timestamp","nullable":false,"metadata":{}},{"name":"who","type":"string","nullable":true,"metadata":{}},{"name":"n","type":"long","nullable":true,"metadata":{}},{"name":"_event_date","type":"date","nullable":true,"metadata":{}}]}"#;

fn metadata(configuration: &Value) -> Value {
    json!({"metaData": {"id": "af23c9d7-fff1-4a5a-a2c8-55c59bd782aa", "format": {"provider": "parquet", "options": {}},
        "schemaString": SCHEMA, "partitionColumns": ["_event_date"], "configuration": configuration, "createdTime": 1}})
}

fn add(number: u32) -> Value {
    let stats =
        json!({"numRecords": 2, "minValues": {"n": 1}, "maxValues": {"n": 2}, "nullCount": {"n": 0}}).to_string();
    json!({"add": {"path": format!("_event_date=2001-01-01/part-{number}.parquet"),
        "partitionValues": {"_event_date": "2001-01-01"}, "size": 1000, "modificationTime": 1, "dataChange": true,
        "stats": stats, "tags": {"from": "0"}}})
}

fn entry(version: u32, actions: &[Value]) -> BundledFile {
    let lines: Vec<String> = actions.iter().map(Value::to_string).collect();
    (format!("_delta_log/{version:020}.json"), (lines.join("\n") + "\n").into_bytes())
}

fn with_features(features: &[&str]) -> Value {
    json!({"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": features, "writerFeatures": features}})
}

fn old_protocol() -> Value {
    json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}})
}

/// Returns one log per way of writing.
pub fn foreign_logs() -> Vec<Vec<BundledFile>> {
    let commit = json!({"commitInfo": {"timestamp": 1, "operation": "WRITE", "operationParameters": {"mode": "Append"},
        "isolationLevel": "Serializable", "engineInfo": "Apache-Spark/3.5.1 Delta-Lake/3.1.0", "txnId": "1"}});
    let plain = vec![
        entry(0, &[commit.clone(), old_protocol(), metadata(&json!({}))]),
        entry(1, &[commit.clone(), add(0), add(1)]),
        entry(
            2,
            &[
                commit.clone(),
                add(2),
                json!({"remove": {"path": "_event_date=2001-01-01/part-0.parquet",
            "deletionTimestamp": 5, "dataChange": true}}),
                json!({"txn": {"appId": "s/0", "version": 7, "lastUpdated": 1}}),
            ],
        ),
    ];
    let mut vector = add(0);
    vector["add"]["deletionVector"] = json!({"storageType": "u", "pathOrInlineDv": "ab^-aqEH.-t@S}K{vb[*k^", "offset": 4,
        "sizeInBytes": 40, "cardinality": 1});
    let vectors = vec![
        entry(0, &[with_features(&["deletionVectors"]), metadata(&json!({"delta.enableDeletionVectors": "true"}))]),
        entry(1, &[commit.clone(), add(0), add(1)]),
        entry(2, &[commit.clone(), vector]),
    ];
    let mapped = vec![
        entry(
            0,
            &[
                json!({"protocol": {"minReaderVersion": 2, "minWriterVersion": 5}}),
                metadata(&json!({"delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": "4"})),
            ],
        ),
        entry(1, &[commit.clone(), add(0)]),
    ];
    let checkpoint = [
        json!({"checkpointMetadata": {"version": 1, "tags": {}}}),
        with_features(&["v2Checkpoint"]),
        metadata(&json!({"delta.checkpointPolicy": "v2"})),
        json!({"sidecar": {"path": "016ae953-37a9-438e-8683-9a9a4a79a395.parquet", "sizeInBytes": 1000, "modificationTime": 1}}),
        add(0),
    ];
    let lines: Vec<String> = checkpoint.iter().map(Value::to_string).collect();
    let second_kind = vec![
        (
            "_delta_log/00000000000000000001.checkpoint.80a083e8-7026-4e79-81be-64bd76c43a11.json".to_owned(),
            lines.join("\n").into_bytes(),
        ),
        (
            "_delta_log/_last_checkpoint".to_owned(),
            json!({"version": 1, "size": 5, "parts": null, "sizeInBytes": 3000,
            "v2Checkpoint": {"path": "00000000000000000001.checkpoint.80a083e8-7026-4e79-81be-64bd76c43a11.json",
                "sizeInBytes": 3000, "modificationTime": 1, "nonFileActions": [], "sidecarFiles": []}})
            .to_string()
            .into_bytes(),
        ),
        entry(2, &[commit.clone(), add(1)]),
    ];
    let mut compacted = plain.clone();
    compacted
        .push(("_delta_log/00000000000000000001.00000000000000000002.compacted.json".to_owned(), plain[2].1.clone()));
    compacted.push((
        "_delta_log/00000000000000000002.crc".to_owned(),
        json!({"tableSizeBytes": 2000, "numFiles": 2, "numMetadata": 1, "numProtocol": 1}).to_string().into_bytes(),
    ));
    compacted.push((
        "_delta_log/_last_checkpoint".to_owned(),
        json!({"version": 2, "size": 5, "parts": 1_000_000_000}).to_string().into_bytes(),
    ));
    vec![plain, vectors, mapped, second_kind, compacted]
}
