//! Names the engines that compute batch runs.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What computes the batch runs of a view, as a definition or the settings say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineChoice {
    /// Polars, in this process.
    Polars,
    /// Apache Spark.
    Spark,
    /// Spark for runs that read much, Polars for others.
    Auto,
}

impl EngineChoice {
    /// Returns the value of the option.
    pub fn name(self) -> &'static str {
        match self {
            EngineChoice::Polars => "polars",
            EngineChoice::Spark => "spark",
            EngineChoice::Auto => "auto",
        }
    }
}

/// The engine that computes a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    Polars,
    Spark,
}
