//! Reads the size of each column of a file from its footer, with one or two small requests.

use std::collections::BTreeMap;

use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaDataReader;

use super::{DataFile, LakeError, Table};

/// Bytes of the first request; the footers of most files are smaller.
const FOOTER_BYTES: u64 = 64 * 1024;

impl Table {
    /// Returns the stored bytes of each column of `file`.
    pub async fn column_bytes(&self, file: &DataFile) -> Result<BTreeMap<String, u64>, LakeError> {
        let (store, path) = (self.store(), Path::from(file.path.as_str()));
        let size = u64::try_from(file.size_bytes).unwrap_or(0);
        let mut wanted = FOOTER_BYTES.min(size);
        let metadata = loop {
            let end = store.get_range(&path, size - wanted..size).await?;
            let mut reader = ParquetMetaDataReader::new();
            match reader.try_parse_sized(&end, size) {
                Ok(()) => break reader.finish()?,
                Err(ParquetError::NeedMoreData(more)) if (wanted..=size).contains(&(more as u64)) => {
                    wanted = more as u64
                }
                Err(error) => return Err(error.into()),
            }
        };
        let mut bytes: BTreeMap<String, u64> = BTreeMap::new();
        for column in metadata.row_groups().iter().flat_map(|group| group.columns()) {
            let name = column.column_path().parts().first().cloned().unwrap_or_default();
            *bytes.entry(name).or_default() += u64::try_from(column.compressed_size()).unwrap_or(0);
        }
        Ok(bytes)
    }
}
