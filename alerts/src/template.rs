//! Renders the body of a notice by a template of its receiver, such as Slack's or PagerDuty's: JSON in which `{{ .. }}` stands
//! for values, in the language of Jinja.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use minijinja::{Environment, UndefinedBehavior, context};
use serde_json::{Map, Value, json};
use shared::control::{AlertFigure, AlertRecord, AlertState};
use shared::ids::AlertName;
use shared::time::Micros;

/// Its extension makes every value JSON: a text gets its quotes, and nothing in it ends it early.
const NAME: &str = "notice.json";

/// A template, and the values of its receiver.
#[derive(Clone)]
pub struct NoticeTemplate {
    environment: Arc<Environment<'static>>,
    values: Arc<BTreeMap<String, String>>,
}

impl fmt::Debug for NoticeTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may be secret.
        f.write_str("NoticeTemplate")
    }
}

/// A template cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("the template cannot be read: {0}")]
    Syntax(String),
    #[error("the template cannot be rendered: {0}")]
    Render(String),
    #[error("the template does not make JSON: {0}; a value stands without quotes, as {{{{ data.alert }}}}")]
    NotJson(String),
}

impl NoticeTemplate {
    /// Reads a template, and tries it with an alert.
    pub fn new(text: &str, values: BTreeMap<String, String>) -> Result<NoticeTemplate, TemplateError> {
        let mut environment = Environment::new();
        // A figure is there only in the notices of its alert.
        environment.set_undefined_behavior(UndefinedBehavior::Chainable);
        let added = environment.add_template_owned(NAME, text.to_owned());
        added.map_err(|error| TemplateError::Syntax(reason(&error)))?;
        let template = NoticeTemplate { environment: Arc::new(environment), values: Arc::new(values) };
        for state in AlertState::ALL {
            template.render(&example(state), 0)?;
        }
        Ok(template)
    }

    /// Returns the body of the notice of a record, before which `suppressed` notices of the alert were not sent.
    pub fn render(&self, record: &AlertRecord, suppressed: u64) -> Result<Vec<u8>, TemplateError> {
        let template = self.environment.get_template(NAME).map_err(|error| TemplateError::Syntax(reason(&error)))?;
        let rendered = template.render(context! {
            type => format!("alert.{}", record.state.name()),
            timestamp => record.changed_at.to_string(),
            summary => summary(record),
            suppressed => suppressed,
            data => record,
            values => *self.values,
        });
        let body = rendered.map_err(|error| TemplateError::Render(reason(&error)))?;
        match serde_json::from_str::<serde::de::IgnoredAny>(&body) {
            Ok(_) => Ok(body.into_bytes()),
            Err(error) => Err(TemplateError::NotJson(error.to_string())),
        }
    }
}

/// Says in a line what happened.
fn summary(record: &AlertRecord) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let key: Vec<String> = record.key.iter().map(|(column, value)| format!("{column} = {}", text(value))).collect();
    let figure = |(name, figure): (&String, &AlertFigure)| match &figure.exact {
        Some(exact) if *exact != figure.served => format!("{name} {}, exactly {}", text(&figure.served), text(exact)),
        _ => format!("{name} {}", text(&figure.served)),
    };
    let figures: Vec<String> = record.figures.iter().map(figure).collect();
    let of = if key.is_empty() { String::new() } else { format!(" for {}", key.join(", ")) };
    format!("{} {}{of}: {}", record.alert, record.state.name(), figures.join(", "))
}

/// The line and the kind of an error; its source lines may have values.
fn reason(error: &minijinja::Error) -> String {
    let line = error.line().map_or_else(String::new, |line| format!(" in line {line}"));
    match error.detail() {
        Some(detail) => format!("{detail}{line}"),
        None => format!("{}{line}", error.kind()),
    }
}

/// An alert like those that a template gets.
fn example(state: AlertState) -> AlertRecord {
    let name = |text: &str| text.parse::<AlertName>().expect("a name");
    AlertRecord {
        id: "0".to_owned(),
        alert: name("high_spend"),
        view: "spend".parse().expect("a name"),
        state,
        key: Map::from_iter([("user_id".to_owned(), json!("u7"))]),
        row: Map::from_iter([("user_id".to_owned(), json!("u7"))]),
        condition: "total > 10000".to_owned(),
        figures: BTreeMap::from([(
            "total".to_owned(),
            AlertFigure { served: json!("10050.00"), ..AlertFigure::default() },
        )]),
        finality: "open".to_owned(),
        raised_at: Micros(0),
        changed_at: Micros(0),
        times: 1,
        position: BTreeMap::new(),
        version: None,
        cause: None,
        declared: true,
        seq: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(text: &str) -> Value {
        let template = NoticeTemplate::new(text, BTreeMap::from([("key".to_owned(), "a \"key\"".to_owned())]));
        let body = template.expect("a template").render(&example(AlertState::Withdrawn), 3).expect("renders");
        serde_json::from_slice(&body).expect("JSON")
    }

    #[test]
    fn values_become_json_whatever_is_in_them() {
        assert_eq!(
            rendered(r#"{"text": {{ summary }}}"#)["text"],
            json!("high_spend withdrawn for user_id = u7: total 10050.00")
        );
        assert_eq!(
            rendered(r#"[{{ values.key }}, {{ suppressed }}, {{ data.version }}]"#),
            json!(["a \"key\"", 3, null])
        );
        assert_eq!(
            rendered(r#"{"a": {{ "resolve" if data.state == "withdrawn" else "trigger" }}}"#)["a"],
            json!("resolve")
        );
        assert_eq!(rendered("{{ data }}")["key"], json!({"user_id": "u7"}));
        assert_eq!(rendered(r#"{"n": {{ data.figures.nothing.served }}}"#)["n"], json!(null), "of another alert");
    }

    #[test]
    fn templates_that_make_no_json_are_refused_with_the_reason() {
        let refused = |text: &str| NoticeTemplate::new(text, BTreeMap::new()).expect_err("refused").to_string();
        assert!(refused(r#"{"text": "{{ summary }}"}"#).contains("without quotes"));
        assert!(refused("{\"text\": {{ summary }").contains("line 1"), "{}", refused("{\"text\": {{ summary }"));
        assert!(refused("{\"text\": {{ summary | no_such }}}").contains("no_such"));
    }
}
