//! The JSON Schemas in the documents against the types that read settings and input.

use anyhow::Result;
use serde_json::Value;

use crate::Repository;

/// The documents have the schemas that the types give.
///
/// # Errors
/// When a schema is not there or is no JSON.
pub fn generated(repository: &Repository) -> Result<Vec<String>> {
    let schemas = [
        ("settings", settings::schema::settings()),
        ("input", settings::schema::input()),
    ];
    let mut problems = Vec::new();
    for (name, generated) in schemas {
        let path = format!("docs/{name}.schema.json");
        let text = repository.file(&path).unwrap_or("null");
        if serde_json::from_str::<Value>(text)? != generated {
            problems.push(format!(
                "{path} is not what the types say; write it again: \
                 cargo run --package settings --features schema --bin settings-schema {name} > {path}"
            ));
        }
    }
    Ok(problems)
}
