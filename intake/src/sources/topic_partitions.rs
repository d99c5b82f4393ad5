//! Decides how many partitions a stream that reads a topic has: as many as the topic, and never fewer than it had.
//!
//! A partition that exists has a folder in the log. A reader that finds more in the topic creates their folders, and the next
//! start opens them, whether the brokers answer then or not.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use shared::limits::PARTITIONS_MAX;
use shared::stream::Stream;

use super::error::SourceError;
use super::opener::SourceOpener;

/// Longest wait of a start for the brokers. Without an answer, the stream has the partitions that it had.
const DESCRIBE_WAIT: Duration = Duration::from_secs(10);

/// Gives streams that read a topic as many partitions as the topic has, or at least as many as their logs under `data`.
pub async fn with_topic_partitions(
    streams: Vec<Arc<Stream>>,
    data: &Path,
    opener: &dyn SourceOpener,
) -> io::Result<Vec<Arc<Stream>>> {
    let described = streams.iter().map(|stream| described_partitions(stream, opener));
    let described = join_all(described).await;
    let mut sized = Vec::with_capacity(streams.len());
    for (stream, found) in streams.into_iter().zip(described) {
        let Some(found) = found else {
            sized.push(stream);
            continue;
        };
        let known = on_disk(&data.join("log").join(stream.name.as_str()))?.max(stream.partitions);
        let partitions = if found > PARTITIONS_MAX { known } else { known.max(found) };
        sized.push(Arc::new(Stream { partitions, ..Stream::clone(&stream) }));
    }
    Ok(sized)
}

/// The number of partitions that the topic of `stream` has, 0 if the brokers do not say; `None` if it reads none.
async fn described_partitions(stream: &Stream, opener: &dyn SourceOpener) -> Option<u32> {
    let topic = stream.topic()?;
    let describe = async {
        let reader = opener.open(stream, topic).await?;
        let described = reader.describe().await;
        reader.close().await;
        Ok::<_, SourceError>(described?.partitions)
    };
    let error = match tokio::time::timeout(DESCRIBE_WAIT, describe).await {
        Ok(Ok(found)) => return Some(found),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the brokers do not answer".to_owned(),
    };
    tracing::warn!(stream = %stream.name, topic = %topic.topic, %error, "cannot count the partitions of a topic; will retry");
    Some(0)
}

/// The number of partitions that have a folder, up to the last.
fn on_disk(folder: &Path) -> io::Result<u32> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut partitions = 0;
    for entry in entries {
        let number = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        partitions = partitions.max(number.filter(|number| *number < PARTITIONS_MAX).map_or(0, |number| number + 1));
    }
    Ok(partitions)
}
