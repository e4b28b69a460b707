//! The human-readable report: differences by Ingress, then what was not compared, then the totals.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use fairway_model::Origin;

use super::Collected;
use super::cause::{Group, Related, Report};
use super::difference::{Aspect, Change};
use super::question::Question;
use crate::terminal::{Style, Terminal, count, printable};

/// Requests listed for one difference.
const SHOWN: usize = 3;
/// Number of Ingresses from which a shared difference is shown once.
const COMMON: usize = 4;
/// Longest value shown.
const VALUE: usize = 300;

/// The whole text.
pub(super) fn render(
    sides: &[String; 2],
    report: &Report,
    collected: &Collected,
    explain: Option<&str>,
    terminal: Terminal,
) -> String {
    let mut page = Sheet { terminal, out: String::new() };
    let common = common(&report.groups);
    for same in &common {
        page.common(same);
    }
    let mut last: Option<Option<&Origin>> = None;
    for group in report.groups.iter().filter(|group| !common.iter().flatten().any(|same| std::ptr::eq(*same, *group))) {
        if last != Some(group.ingress.as_ref()) {
            page.heading(group);
            last = Some(group.ingress.as_ref());
        }
        page.group(group);
    }
    if !report.documented.is_empty() {
        page.title("Differences that are documented (docs/switch.md), not counted");
        for (rule, requests) in &report.documented {
            page.line(1, rule.text);
            page.requests(requests, 2);
        }
    }
    if !report.unsteady.is_empty() {
        page.title("Parts that change from answer to answer at the old address, not compared");
        let mut by_parts: BTreeMap<String, Vec<Question>> = BTreeMap::new();
        for (request, aspects) in &report.unsteady {
            let parts: Vec<_> = aspects.iter().map(ToString::to_string).collect();
            by_parts.entry(parts.join(", ")).or_default().push(request.clone());
        }
        for (parts, requests) in &by_parts {
            page.line(1, parts);
            page.requests(requests, 2);
        }
    }
    let redacted = collected.redacted;
    if !collected.left_out.is_empty() || redacted > 0 {
        page.title("Not sent");
        for (reason, number) in &collected.left_out {
            page.line(1, &format!("{}: {reason}", count(*number as usize, "time", "times")));
        }
        if redacted > 0 {
            let lines = count(redacted as usize, "line", "lines");
            page.line(1, &format!("credentials in the query of {lines}: \"redacted\" was sent in their place"));
        }
    }
    if let Some(why) = &report.stopped {
        page.title("Stopped early");
        page.line(1, why);
    }
    page.totals(sides, report, explain);
    page.out
}

/// Groups that share a change of a field which no annotation concerns, over so many Ingresses that the cause is not any single one.
fn common(groups: &[Group]) -> Vec<Vec<&Group>> {
    let mut by_changes: BTreeMap<&[Change], Vec<&Group>> = BTreeMap::new();
    let fields = |group: &&Group| group.changes.iter().all(|change| matches!(change.aspect, Aspect::Field(_)));
    for group in groups.iter().filter(|group| group.annotations.is_empty()).filter(fields) {
        by_changes.entry(&group.changes).or_default().push(group);
    }
    by_changes.into_values().filter(|same| same.len() >= COMMON).collect()
}

/// The text so far.
struct Sheet {
    terminal: Terminal,
    out: String,
}

impl Sheet {
    fn title(&mut self, text: &str) {
        let gap = if self.out.is_empty() { "" } else { "\n" };
        let _ = writeln!(self.out, "{gap}{}", self.terminal.style(Style::Bold, printable(text)));
    }

    fn line(&mut self, depth: usize, text: &str) {
        let _ = writeln!(self.out, "{:1$}{2}", "", depth * 2, printable(text));
    }

    fn heading(&mut self, group: &Group) {
        let Some(ingress) = &group.ingress else { return self.title("No Ingress") };
        let name = Origin::new(&*ingress.kind, &*ingress.namespace, &*ingress.name);
        let place = group.place.as_ref().map(|place| format!("  {place}")).unwrap_or_default();
        self.title(&format!("{name}{place}"));
    }

    /// Adds groups that differ in the same way.
    fn common(&mut self, same: &[&Group]) {
        let ingresses = same.iter().filter_map(|group| group.ingress.as_ref()).collect::<BTreeSet<_>>().len();
        self.title(&count(ingresses, "Ingress", "Ingresses"));
        let requests: Vec<_> = same.iter().map(|group| group.requests[0].clone()).collect();
        let all = same.iter().map(|group| group.requests.len()).sum();
        for (at, change) in same[0].changes.iter().enumerate() {
            let all = if at == 0 { format!("  ({})", count(all, "request", "requests")) } else { String::new() };
            self.change(change, &all);
        }
        self.requests(&requests, 2);
        self.line(2, "no annotation concerns this: look at the ConfigMap and the flags of the controllers");
    }

    fn group(&mut self, group: &Group) {
        for (at, change) in group.changes.iter().enumerate() {
            let several = at == 0 && group.requests.len() > 1;
            let all = count(group.requests.len(), "request", "requests");
            let all = if several { format!("  ({all})") } else { String::new() };
            self.change(change, &all);
        }
        self.requests(&group.requests, 2);
        if let Some(why) = &group.why {
            self.line(2, &format!("Fairway's reason: {why}"));
        }
        let (known, others): (Vec<_>, Vec<_>) = group.annotations.iter().partition(|related| related.is_known());
        let (possible, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|related| related.is_possible());
        for (word, all) in [("known:", known), ("perhaps:", possible)] {
            for Related { name, verdict, note, .. } in all {
                let word = self.terminal.style(Style::Yellow, word).to_string();
                let _ = writeln!(self.out, "    {word} {}", printable(&format!("{name} {verdict}: {note}")));
            }
        }
        if !others.is_empty() {
            let names: Vec<_> =
                others.iter().map(|related| format!("{} ({})", related.name, related.verdict)).collect();
            self.line(2, &format!("annotations to look at: {}", names.join(", ")));
        }
    }

    fn change(&mut self, change: &Change, more: &str) {
        let text = |value: &Option<String>| value.as_deref().map_or("none".to_owned(), shortened);
        let aspect = self.terminal.style(Style::Red, change.aspect.to_string());
        let values = format!("old: {}  new: {}", text(&change.old), text(&change.new));
        let _ = writeln!(self.out, "  {aspect}  {}{more}", printable(&values));
    }

    fn requests(&mut self, requests: &[Question], depth: usize) {
        for request in requests.iter().take(SHOWN) {
            let fields: Vec<_> = request.fields.iter().map(|(name, value)| format!(" -H '{name}: {value}'")).collect();
            self.line(depth, &format!("{} {}{}", request.method, shortened(&request.url()), fields.concat()));
        }
        if requests.len() > SHOWN {
            self.line(depth, &format!("and {} more", requests.len() - SHOWN));
        }
    }

    fn totals(&mut self, sides: &[String; 2], report: &Report, explain: Option<&str>) {
        if !self.out.is_empty() {
            self.out.push('\n');
        }
        let (style, different) = match report.different {
            0 => (Style::Green, "no difference".to_owned()),
            1 => (Style::Red, "1 differs".to_owned()),
            number => (Style::Red, format!("{number} differ")),
        };
        let documented: usize = report.documented.iter().map(|(_, requests)| requests.len()).sum();
        let documented = if documented > 0 { format!(", {documented} differ as documented") } else { String::new() };
        let _ = writeln!(
            self.out,
            "{} to {} (old) and {} (new): {}{documented}",
            count(report.asked, "request", "requests"),
            printable(&sides[0]),
            printable(&sides[1]),
            self.terminal.style(style, different),
        );
        if let Some((group, explain)) = report.groups.iter().find(|group| group.ingress.is_some()).zip(explain) {
            let request = &group.requests[0];
            self.line(0, &format!("Next: {explain} {} '{}'", request.method, request.url()));
        }
    }
}

fn shortened(text: &str) -> String {
    if text.len() <= VALUE {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(VALUE)])
}
