//! Names the reason why Spark cannot compute a view with the same result.

/// The part of a view that Spark cannot compute, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Spark cannot compute {part} with the same result: {reason}")]
pub struct Refusal {
    /// As in `WHERE`, `measure p95` or `dimension origin`.
    pub part: String,
    /// What differs, and what to do.
    pub reason: Unsupported,
}

/// An operation that Spark cannot compute with the same result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    #[error("it formats a DOUBLE differently; compare numbers instead of texts")]
    DoubleAsText,
    #[error("it accepts other time formats; declare the column as TIMESTAMP")]
    TextAsTime,
    #[error("it rounds a DOUBLE to a DECIMAL of more than 18 digits differently; cast to at most DECIMAL(18,s)")]
    WideDecimalOfDouble,
    #[error(
        "an intermediate sum of a DECIMAL with more than 28 digits may overflow; cast the argument to at most DECIMAL(28,s)"
    )]
    WideDecimalSum,
    #[error(
        "EXP, LN and POWER may differ in the last digit, which may change the group or the condition; use them only in SUM, \
         AVG, variances, MIN, MAX and percentiles"
    )]
    LastDigits,
    #[error("it does not limit the length of texts; use fewer or shorter CONCAT and REPLACE")]
    LongTexts,
    #[error(
        "the query would be longer than {} characters; use smaller expressions",
        shared::limits::SPARK_QUERY_CHARS_MAX
    )]
    TooLong,
    #[error("the view has no batch runs (layers = 'speed')")]
    SpeedAlone,
    #[error("its figures over tables have not been compared yet; let Polars compute the view")]
    Table,
}
