//! `fairway convert`: Ingresses as Gateway API resources and RoutePolicies, with what changes, and the proof that the rest doesn't.

mod assemble;
mod gateway;
mod order;
mod paths;
mod policy;
mod prove;
mod route;
mod served;
mod table;
#[cfg(test)]
mod tests;
mod whole;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::ArgMatches;
use fairway_translate::diagnostic::Severity;
use fairway_translate::gateway::schema;
use fairway_translate::objects::{Kind, Object};
use serde_json::{Value, json};

use self::assemble::{Converted, Verdict, Wanted, convert};
use self::prove::{Before, Proof, prove};
use crate::cli;
use crate::flags::{Flags, UsageError, refuse_cluster};
use crate::manifest::Refused;
use crate::reading::{Missing, Reading, Source, missing_objects, read};
use crate::report;
use crate::terminal::{Style, Terminal, count, printable};

/// Differences that are listed; there may be thousands.
const LISTED: usize = 50;

/// Runs the command.
pub(crate) fn main(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let instead = "write its objects to a file first, with `kubectl get ingress,ingressclass,service,secret,configmap -A -o yaml`";
    refuse_cluster(&Flags::from_matches(matches), instead)?;
    let reading =
        read(&cli::all::<PathBuf>(matches, "paths"), &Flags::from_matches(matches), Missing::Echo, Refused::Read)?;
    let told = reading.manifests.findings().into_iter();
    let told = told.chain(missing_objects(&reading.objects, &reading.options, Source::Files));
    let errors: Vec<_> = told.filter(|found| found.diagnostic.severity == Severity::Error).collect();
    let reading = with_all_services(reading)?;
    let gateway = match matches.get_one::<String>("gateway") {
        Some(text) => match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
                Some((namespace.to_owned(), name.to_owned()))
            }
            _ => bail!(UsageError(format!("--gateway {text:?}: expected NAMESPACE/NAME"))),
        },
        None => None,
    };
    let class = matches.get_one::<String>("gateway-class").cloned().unwrap_or_else(|| "fairway".to_owned());
    let names = gateway.iter().flat_map(|(namespace, name)| [("--gateway", namespace), ("--gateway", name)]);
    for (flag, name) in names.chain([("--gateway-class", &class)]) {
        if !cli::is_subdomain(name) {
            bail!(UsageError(format!("{flag} {name:?}: expected lower-case letters, digits, - and .")));
        }
    }
    let (converted, proof) = whole_and_proven(&reading, Wanted { gateway, class, wider: BTreeMap::new() })?;
    if converted.objects.is_empty() && converted.notes.is_empty() && errors.is_empty() {
        bail!(UsageError("there is no Ingress to convert, or none of the class that is served".into()));
    }
    match matches.get_one::<String>("output").map(String::as_str) {
        Some("json") => {
            let output = json!({
                "objects": converted.objects.iter().map(document).collect::<Vec<_>>(),
                "notes": converted.notes,
                "errors": errors.iter().map(report::json).collect::<Vec<_>>(),
                "requests": proof.asked,
                "differences": proof.differences,
            });
            Terminal::plain().print(&format!("{output:#}\n"));
        }
        _ => {
            let documents: Vec<_> = converted.objects.iter().map(|object| schema::yaml(&document(object))).collect();
            Terminal::plain().print(&documents.join("---\n"));
            for error in &errors {
                eprint!("{}", report::line(error, Terminal::plain()));
            }
            eprint!("{}", summary(&reading, &converted, &proof, Terminal::plain()));
        }
    }
    let is_whole = converted.notes.iter().all(|note| note.verdict == Verdict::Changes) && errors.is_empty();
    Ok(if is_whole && proof.differences.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What can be converted without letting anything through that is kept out now: what the proof finds wider is left as it is.
fn whole_and_proven(reading: &Reading, mut wanted: Wanted) -> anyhow::Result<(Converted, Proof)> {
    let before = Before::new(reading);
    loop {
        let converted = convert(reading, &wanted);
        // Each round leaves out at least one more.
        let left_out = wanted.wider.len();
        wanted.wider.extend(order::torn(reading, &converted));
        if wanted.wider.len() > left_out {
            continue;
        }
        let proof = prove(&before, &converted)?;
        wanted.wider.extend(proof.wider.clone());
        if wanted.wider.len() == left_out {
            return Ok((converted, proof));
        }
    }
}

/// The same with a Service wherever one is named: files of Ingresses rarely have them all.
fn with_all_services(reading: Reading) -> anyhow::Result<Reading> {
    let mut options = reading.options;
    options.development.get_or_insert_default().echo_for_missing = true;
    let now = jiff::Timestamp::now().as_second();
    let translation = fairway_translate::translate(&reading.objects, &options, now);
    Ok(Reading { source: Source::Files, ..Reading::of(reading.objects, translation, options)? })
}

/// An object as it is applied.
fn document(object: &Object) -> Value {
    let mut value = match object {
        Object::GatewayClass(it) => json!(&**it),
        Object::Gateway(it) => json!(&**it),
        Object::HTTPRoute(it) => json!(&**it),
        Object::ReferenceGrant(it) => json!(&**it),
        Object::RoutePolicy(it) => json!(&**it),
        _ => Value::Null,
    };
    let kind = object.kind();
    value["apiVersion"] = json!(match kind {
        // Older releases serve this version only, and all do.
        Kind::ReferenceGrant => "gateway.networking.k8s.io/v1beta1",
        kind => kind.api_version(),
    });
    value["kind"] = json!(kind.as_str());
    value
}

/// What changes, for people.
fn summary(reading: &Reading, converted: &Converted, proof: &Proof, terminal: Terminal) -> String {
    let mut out = String::new();
    let total = reading.objects.of_kind(Kind::Ingress).count();
    for (verdict, title, style) in [
        (Verdict::NotConverted, "Left as they are", Style::Red),
        (Verdict::Lost, "Lost", Style::Red),
        (Verdict::Changes, "Changed", Style::Yellow),
    ] {
        let notes: Vec<_> = converted.notes.iter().filter(|note| note.verdict == verdict).collect();
        if notes.is_empty() {
            continue;
        }
        let _ = writeln!(out, "{}", terminal.style(style, title));
        for note in notes {
            let about = if note.about.is_empty() { String::new() } else { format!("{}: ", note.about) };
            let _ = writeln!(out, "  {}", printable(&format!("{}: {about}{}", note.object, note.text)));
        }
    }
    if !proof.differences.is_empty() {
        let _ = writeln!(out, "{}", terminal.style(Style::Yellow, "Requests that are answered in another way"));
        for one in proof.differences.iter().take(LISTED) {
            let mut line = format!("{} ({}): {}: {}, was {}", one.request, one.object, one.what, one.after, one.before);
            if one.requests > 1 {
                let more = count(one.requests - 1, "more request", "more requests");
                let _ = write!(line, "; likewise {more} from other clients or with other methods");
            }
            let _ = writeln!(out, "  {}", printable(&line));
        }
        if proof.differences.len() > LISTED {
            let _ = writeln!(out, "  and {} more: --output json has all", proof.differences.len() - LISTED);
        }
    }
    let same = proof.asked - proof.different;
    let _ = writeln!(
        out,
        "{} of {} converted; {same} of {} that they serve get the same answer from the routes",
        converted.done.len(),
        count(total, "Ingress", "Ingresses"),
        count(proof.asked, "request", "requests"),
    );
    out
}
