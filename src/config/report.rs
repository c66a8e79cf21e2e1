//! What was found in a file, and how it is told: message, place, snippet with carets, and what to do.

use std::fmt;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Element, Group, Level, Origin, Renderer, Snippet};

use super::mask::mask;
use super::node::Span;

/// So many findings are written out; the rest are counted. Nobody mends more than this in one go.
const SHOWN: usize = 100;
/// A longer line is named, not shown.
const LONGEST_LINE: usize = 2_000;
/// Two places further apart than this are shown as two snippets.
const NEAR: usize = 40;

/// Whether a finding stops the file from being used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Severity {
    Error,
    Warning,
}

/// One thing found in the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    message: String,
    /// Where, and the words under the carets. None: the file as a whole.
    place: Option<(Span, String)>,
    /// Further places that belong to it.
    related: Vec<(Span, String)>,
    help: Vec<String>,
}

impl Finding {
    pub(super) fn new(severity: Severity, place: Option<Span>, message: impl Into<String>) -> Self {
        let place = place.map(|span| (span, String::new()));
        Self { severity, message: message.into(), place, related: Vec::new(), help: Vec::new() }
    }

    /// The words under the carets.
    pub(super) fn label(&mut self, label: impl Into<String>) -> &mut Self {
        if let Some((_, text)) = &mut self.place {
            *text = label.into();
        }
        self
    }

    /// Another place that belongs to it.
    pub(super) fn also(&mut self, span: &Span, label: impl Into<String>) -> &mut Self {
        self.related.push((span.clone(), label.into()));
        self
    }

    /// What to do. Nothing is added when there is nothing to say.
    pub(super) fn help(&mut self, help: impl Into<String>) -> &mut Self {
        let help = help.into();
        if !help.is_empty() {
            self.help.push(help);
        }
        self
    }
}

/// The file's name, as the operator gave it, and its text.
#[derive(Debug, PartialEq)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) text: String,
    /// The same as it may be shown.
    shown: String,
    /// Byte offset of the start of each line.
    lines: Vec<usize>,
}

impl Source {
    pub(super) fn new(name: impl Into<String>, text: impl Into<String>) -> Arc<Self> {
        let text = text.into();
        let shown = mask(&text);
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Arc::new(Self { name: name.into(), text, shown, lines })
    }

    /// The line that holds a byte, counted from 0.
    fn line_of(&self, byte: usize) -> usize {
        self.lines.partition_point(|start| *start <= byte).saturating_sub(1)
    }

    /// The text of some lines as it may be shown, without the last line break.
    fn slice(&self, first: usize, last: usize) -> &str {
        let end = self.lines.get(last + 1).map_or(self.shown.len(), |next| next - 1);
        &self.shown[self.lines[first]..end.max(self.lines[first])]
    }

    /// Line and column, both from 1; columns are characters.
    fn line_and_column(&self, byte: usize) -> (usize, usize) {
        let line = self.line_of(byte);
        let before = self.text.get(self.lines[line]..byte).unwrap_or_default();
        (line + 1, before.chars().count() + 1)
    }
}

/// Every error of a file (and its warnings). `Display` renders it for a terminal or a log, without colour.
#[derive(Debug)]
pub struct Report {
    source: Arc<Source>,
    findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(source: Arc<Source>, mut findings: Vec<Finding>) -> Self {
        sort(&mut findings);
        Self { source, findings }
    }

    /// How many errors there are.
    #[must_use]
    pub fn error_count(&self) -> usize {
        count(&self.findings, Severity::Error)
    }

    /// The headline of each error, in the order of the file.
    pub fn errors(&self) -> impl Iterator<Item = &str> {
        self.findings.iter().filter(|f| f.severity == Severity::Error).map(|f| f.message.as_str())
    }

    /// The same text as `Display`, with colours for a terminal.
    #[must_use]
    pub fn styled(&self) -> String {
        self.render(&Renderer::styled())
    }

    fn render(&self, renderer: &Renderer) -> String {
        let mut text = String::new();
        for finding in self.findings.iter().take(SHOWN) {
            text += &render(finding, &self.source, renderer);
            text += "\n\n";
        }
        if let Some(rest) = self.findings.len().checked_sub(SHOWN).filter(|rest| *rest > 0) {
            text += &format!("... and {rest} more\n\n");
        }
        let errors = counted(self.error_count(), "error");
        let warnings = match count(&self.findings, Severity::Warning) {
            0 => String::new(),
            n => format!(" and {}", counted(n, "warning")),
        };
        text + &format!("{errors}{warnings} in {}", self.source.name)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(&Renderer::plain()))
    }
}

impl std::error::Error for Report {}

/// Something that deserves a look, in a file that can be used. `Display` renders it with its snippet.
#[derive(Debug, Clone, PartialEq)]
pub struct Warning {
    source: Arc<Source>,
    finding: Finding,
}

impl Warning {
    /// Warnings in the order of the file. Errors have no place here.
    pub(super) fn all(source: &Arc<Source>, mut findings: Vec<Finding>) -> Vec<Self> {
        sort(&mut findings);
        findings.into_iter().map(|finding| Self { source: Arc::clone(source), finding }).collect()
    }

    /// What it is about, in one line: for the log.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.finding.message
    }

    /// What to do, when there is something to say.
    #[must_use]
    pub fn help(&self) -> Option<&str> {
        self.finding.help.first().map(String::as_str)
    }

    /// The line of the file, from 1.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        self.finding.place.as_ref().map(|(span, _)| self.source.line_and_column(span.start).0)
    }

    /// The same text as `Display`, with colours for a terminal.
    #[must_use]
    pub fn styled(&self) -> String {
        render(&self.finding, &self.source, &Renderer::styled())
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&render(&self.finding, &self.source, &Renderer::plain()))
    }
}

/// `1 error`, `2 errors`.
pub(super) fn counted(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

fn count(findings: &[Finding], severity: Severity) -> usize {
    findings.iter().filter(|f| f.severity == severity).count()
}

/// The order of the file. What an alias repeats is told once.
fn sort(findings: &mut Vec<Finding>) {
    findings.sort_by_key(|f| f.place.as_ref().map_or((0, 0), |(span, _)| (span.start, span.end)));
    findings.dedup();
}

fn render(finding: &Finding, source: &Source, renderer: &Renderer) -> String {
    let level = match finding.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = level.primary_title(clean(&finding.message)).elements(snippets(finding, source));
    for help in &finding.help {
        group = group.element(Level::HELP.message(clean(help)));
    }
    let group: Group<'_> = group;
    renderer.render(&[group])
}

/// The snippet of the finding; a second one for each place that is far from it.
fn snippets<'a>(finding: &'a Finding, source: &'a Source) -> Vec<Element<'a>> {
    let Some((span, label)) = &finding.place else {
        return vec![Origin::path(clean(&source.name)).into()];
    };
    let home = source.line_of(span.start);
    let is_near = |span: &Span| source.line_of(span.start).abs_diff(home) <= NEAR;
    let near = finding.related.iter().filter(|(span, _)| is_near(span));
    let mut shown = vec![(span, label, AnnotationKind::Primary)];
    shown.extend(near.map(|(span, label)| (span, label, AnnotationKind::Context)));

    let mut elements = vec![snippet(&shown, source)];
    let far = finding.related.iter().filter(|(span, _)| !is_near(span));
    elements.extend(far.map(|(span, label)| snippet(&[(span, label, AnnotationKind::Context)], source)));
    elements
}

/// The lines that hold all of `places`, with carets under each. Only the first line of a place is marked.
fn snippet<'a>(places: &[(&Span, &'a String, AnnotationKind)], source: &'a Source) -> Element<'a> {
    let lines = places.iter().map(|(span, ..)| source.line_of(span.start));
    let (first, last) = (lines.clone().min().unwrap_or(0), lines.max().unwrap_or(0));
    let text = source.slice(first, last);
    if text.lines().any(|line| line.len() > LONGEST_LINE) {
        let (line, column) = source.line_and_column(places[0].0.start);
        return Origin::path(clean(&source.name)).line(line).char_column(column).into();
    }
    let offset = source.lines[first];
    let annotations = places.iter().map(|(span, label, kind)| {
        let start = span.start.saturating_sub(offset).min(text.len());
        let line_end = text[start..].find(['\n', '\r']).map_or(text.len(), |at| start + at);
        let end = span.end.saturating_sub(offset).clamp(start, line_end);
        let label = (!label.is_empty()).then(|| clean(label));
        kind.span(start..end).label(label)
    });
    Snippet::source(text).line_start(first + 1).path(clean(&source.name)).annotations(annotations).into()
}

/// Control characters made visible: nothing from the file or the environment may drive a terminal.
fn clean(text: &str) -> String {
    text.chars().map(visible).collect()
}

fn visible(c: char) -> String {
    if c.is_control() { c.escape_default().to_string() } else { c.to_string() }
}

/// A value of the operator within a message: in backquotes, on one line, not endless.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    let shown: String = text.chars().take(LONGEST).map(visible).collect();
    let rest = if text.chars().nth(LONGEST).is_some() { "..." } else { "" };
    format!("`{shown}{rest}`")
}
