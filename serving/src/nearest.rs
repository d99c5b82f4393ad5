//! Suggests the valid name that a misspelt one probably meant, as every layer does.

pub use shared::sql::suggest::in_parentheses as did_you_mean;
