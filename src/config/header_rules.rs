//! `routes[].headers`: fields that a route adds or takes away.

/// The rules of a route. Names are in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderRules {
    /// On the way to the app.
    pub request: FieldRules,
    /// On the way to the client.
    pub response: FieldRules,
    /// Whether answers get the fields by which browsers protect a site. Default false.
    pub security: bool,
}

/// What is taken away, then what is set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldRules {
    /// Instead of whatever is there.
    pub set: Vec<(String, String)>,
    /// All lines of each.
    pub remove: Vec<String>,
}

impl FieldRules {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }
}
