//! Binds the declared alerts of a view to the definition that is served.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use shared::alert::Alert;
use shared::control::AlertDeclaration;
use shared::ids::ViewName;
use shared::published::PublishedView;
use shared::sql::parse_alert;
use shared::view::View;

/// An alert, and what identifies the records it raises.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Bound to one definition of its view.
    pub alert: Alert,
    /// The hash of its definition, as it was declared.
    pub hash: Arc<str>,
    pub reads_previous: bool,
}

/// The declared alerts of one view.
#[derive(Debug)]
pub struct ViewRules {
    pub view: ViewName,
    declared: Vec<Rule>,
    /// The hash of the view's declared definition.
    definition: String,
    /// By definition of the view; a view has two at most.
    bound: Mutex<HashMap<Arc<str>, Arc<Vec<Rule>>>>,
}

impl Rule {
    /// Returns the rule of an alert that is declared for `view`.
    pub fn new(alert: Alert, view: &View) -> Rule {
        let (hash, reads_previous) = (Arc::from(alert.definition_hash(view)), alert.reads_previous(view));
        Rule { alert, hash, reads_previous }
    }

    /// Describes the alert for clients.
    pub fn declaration(&self, view: &View) -> AlertDeclaration {
        AlertDeclaration {
            name: self.alert.name.clone(),
            view: self.alert.view.clone(),
            condition: self.alert.condition_sql.clone(),
            once_per: self.alert.once_per.iter().map(|column| column.name(view).to_owned()).collect(),
            to: self.alert.target.as_ref().map(ToString::to_string),
            notices_per_minute: self.alert.notices_per_minute,
        }
    }
}

impl ViewRules {
    /// Returns the rules of `alerts`, which are declared for `view`.
    pub fn new(view: &View, alerts: impl IntoIterator<Item = Alert>) -> ViewRules {
        let declared = alerts.into_iter().map(|alert| Rule::new(alert, view)).collect();
        ViewRules { view: view.name.clone(), declared, definition: view.definition_hash(), bound: Mutex::default() }
    }

    /// Returns the rules as declared.
    pub fn declared(&self) -> &[Rule] {
        &self.declared
    }

    /// Returns the rules bound to the served definition. While that is a previous one, an alert whose condition it does not
    /// have is not evaluated.
    pub fn bound_to(&self, published: &PublishedView) -> Arc<Vec<Rule>> {
        let mut bound = self.bound.lock();
        if let Some(rules) = bound.get(&published.definition_hash) {
            return Arc::clone(rules);
        }
        let rules = if *published.definition_hash == *self.definition {
            self.declared.clone()
        } else {
            self.declared.iter().filter_map(|rule| rebound(rule, &published.view)).collect()
        };
        let rules = Arc::new(rules);
        bound.insert(Arc::clone(&published.definition_hash), Arc::clone(&rules));
        rules
    }
}

fn rebound(rule: &Rule, view: &View) -> Option<Rule> {
    match parse_alert(view, &rule.alert.sql) {
        Ok(alert) => Some(Rule { reads_previous: alert.reads_previous(view), alert, hash: Arc::clone(&rule.hash) }),
        Err(error) => {
            let (alert, view, reason) = (&rule.alert.name, &view.name, error.message());
            tracing::warn!(%alert, %view, reason, "alert paused: the served definition of its view does not have its columns");
            None
        }
    }
}
