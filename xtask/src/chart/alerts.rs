//! The rules for Prometheus and the dashboard for Grafana: the chart renders them, and the documentation covers them.
//!
//! `cargo xtask alerts` checks whether they find anything in a real Prometheus.

use serde_json::{Value as Json, json};

use super::Helm;
use super::helm::objects;

const RULES: &str = include_str!("../../../deploy/helm/fairway/files/alerts.yaml");
const DASHBOARD: &str = include_str!("../../../deploy/helm/fairway/files/dashboard.json");

/// The chart renders exactly these files.
pub(super) fn check(helm: &Helm) -> anyhow::Result<Vec<String>> {
    let mut complaints = Vec::new();
    let mut expect = |what: &str, found: &Json, wanted: &Json| {
        if found != wanted {
            complaints.push(format!("{what}: rendered is {found}, not {wanted}"));
        }
    };
    let own: Json = serde_norway::from_str(RULES)?;
    let users = json!([{"alert": "Mine", "expr": "up == 0"}]);
    let group = json!({"name": "ingress-nginx", "rules": users});
    for (what, values, wanted) in [
        ("rules by default", json!({}), json!({"groups": own["groups"]})),
        ("rules of the user", json!({"rules": users}), json!({"groups": [own["groups"][0], group]})),
        ("only rules of the user", json!({"rules": users, "defaultRules": false}), json!({"groups": [group]})),
        ("no rules", json!({"defaultRules": false}), json!({})),
    ] {
        let mut values = values;
        values["enabled"] = json!(true);
        let rendered = rendered(helm, &json!({"prometheusRule": values}), "PrometheusRule")?;
        expect(what, &rendered["spec"], &wanted);
    }
    let base = "https://runbooks.example/fairway";
    let linked = rendered(helm, &json!({"prometheusRule": {"enabled": true, "runbookUrl": base}}), "PrometheusRule")?;
    let first = &linked["spec"]["groups"][0]["rules"][0];
    expect("runbookUrl", &first["annotations"]["runbook_url"], &json!(format!("{base}#fairwayabsent")));

    let dashboard = rendered(helm, &json!({"dashboard": {"enabled": true}}), "ConfigMap")?;
    let text = dashboard["data"]["fairway.json"].as_str().unwrap_or_default();
    expect("the dashboard", &serde_json::from_str(text).unwrap_or_default(), &serde_json::from_str(DASHBOARD)?);
    expect("its label", &dashboard["metadata"]["labels"]["grafana_dashboard"], &json!("1"));
    expect("without asking", &rendered(helm, &json!({}), "PrometheusRule")?, &Json::Null);
    expect("without asking", &rendered(helm, &json!({}), "ConfigMap")?, &Json::Null);
    Ok(complaints)
}

/// The rendered object of a kind for these values of the metrics; among ConfigMaps, the one with the dashboard.
fn rendered(helm: &Helm, metrics: &Json, kind: &str) -> anyhow::Result<Json> {
    let mut values = metrics.clone();
    values["enabled"] = json!(true);
    let text = helm.render("alerts", &json!({"controller": {"metrics": values}}))?;
    let is_it =
        |object: &Json| object["kind"] == kind && (kind != "ConfigMap" || object["data"].get("fairway.json").is_some());
    Ok(objects(&text)?.into_iter().find(is_it).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const PAGE: &str = include_str!("../../../docs/alerts.md");
    const TESTS: &str = include_str!("../../../deploy/helm/fairway/tests/alerts.yaml");
    const METRICS: &str = include_str!("../../../docs/metrics.md");

    fn rules() -> Vec<Json> {
        let file: Json = serde_norway::from_str(RULES).unwrap();
        file["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
    }

    /// Names of metrics that an expression reads, without the suffixes of histograms.
    fn metrics(text: &str) -> BTreeSet<String> {
        let words = text.split(|char: char| !(char.is_ascii_alphanumeric() || char == '_'));
        let ours = words.filter(|word| word.starts_with("fairway_") || word.starts_with("nginx_ingress_controller_"));
        let name = |word: &str| {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| word.strip_suffix(suffix));
            base.unwrap_or(word).to_owned()
        };
        ours.map(name).collect()
    }

    fn expressions() -> Vec<String> {
        fn collect(value: &Json, found: &mut Vec<String>) {
            match value {
                Json::Object(map) => {
                    found.extend(map.get("expr").and_then(Json::as_str).map(str::to_owned));
                    found.extend(map.get("query").and_then(Json::as_str).map(str::to_owned));
                    map.values().for_each(|value| collect(value, found));
                }
                Json::Array(list) => list.iter().for_each(|value| collect(value, found)),
                _ => (),
            }
        }
        let mut found: Vec<String> =
            rules().iter().map(|rule| rule["expr"].as_str().expect("an expression").to_owned()).collect();
        collect(&serde_json::from_str(DASHBOARD).unwrap(), &mut found);
        found
    }

    #[test]
    fn the_page_has_a_section_for_each_rule_and_no_other() {
        let sections: Vec<&str> = PAGE
            .lines()
            .filter_map(|line| line.strip_prefix("### "))
            .filter(|line| line.starts_with("Fairway"))
            .collect();
        let rules = rules();
        let names: Vec<&str> = rules.iter().map(|rule| rule["alert"].as_str().unwrap()).collect();
        assert_eq!(sections, names, "in the same order");
        for (rule, name) in rules.iter().zip(&names) {
            let (_, section) = PAGE.split_once(&format!("### {name}\n")).unwrap();
            let section = section.split("\n##").next().unwrap();
            let severity = rule["labels"]["severity"].as_str().unwrap();
            assert!(section.contains(&format!("**{severity}**")), "{name} is {severity}");
            assert!(section.contains("**What to do**"), "{name}");
            let link = format!("docs/alerts.md#{}", name.to_lowercase());
            assert_eq!(rule["annotations"]["runbook_url"], json!(link), "{name}");
            for text in ["summary", "description"] {
                assert!(rule["annotations"][text].as_str().is_some_and(|text| text.len() > 20), "{name}: {text}");
            }
        }
    }

    #[test]
    fn each_rule_fires_in_a_test() {
        let tests: Json = serde_norway::from_str(TESTS).unwrap();
        let checks: Vec<&Json> = tests["tests"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|test| test["promql_expr_test"].as_array().into_iter().flatten())
            .filter(|check| check["exp_samples"].as_array().is_some_and(|samples| !samples.is_empty()))
            .collect();
        for rule in rules() {
            let name = format!("alertname={}", rule["alert"]);
            assert!(checks.iter().any(|check| check["expr"].as_str().unwrap().contains(&name)), "{name}");
        }
    }

    #[test]
    fn every_metric_that_is_read_exists() {
        let known: BTreeSet<&str> = METRICS
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once("` | ").map(|(name, _)| name))
            .collect();
        assert!(known.len() > 50, "{known:?}");
        let expressions = expressions();
        assert!(expressions.len() > 60, "{}", expressions.len());
        for expression in &expressions {
            for metric in metrics(expression) {
                assert!(known.contains(metric.as_str()), "{metric} in {expression}");
            }
        }
    }

    #[test]
    fn panels_lie_side_by_side_and_have_numbers_of_their_own() {
        let dashboard: Json = serde_json::from_str(DASHBOARD).unwrap();
        let panels = dashboard["panels"].as_array().unwrap();
        let numbers: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
        assert_eq!(numbers.len(), panels.len());
        let mut taken = BTreeSet::new();
        for panel in panels {
            let at = |field: &str| panel["gridPos"][field].as_u64().unwrap();
            assert!(at("x") + at("w") <= 24, "{}", panel["title"]);
            for cell in (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y))) {
                assert!(taken.insert(cell), "{} lies on another panel", panel["title"]);
            }
        }
    }
}
