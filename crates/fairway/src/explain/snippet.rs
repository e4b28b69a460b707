//! Which directive of a snippet answers a request. The model has steps without their lines, so the texts are read once more.

use std::cmp::Reverse;

use fairway_model::decision::{Plan, Step};
use fairway_model::{AccessRules, Filter, Origin, Respond, Route, Snippet, SnippetStep};
use fairway_translate::annotation;
use fairway_translate::objects::{Kind, Object, ObjectKey};
use fairway_translate::snippet::{Answering, AnsweringPlace, Does, answering};

use super::tell::{Teller, owner, place};
use super::text::at_place;

/// The section of a route that a `location` block of a snippet makes.
const LOCATION: &str = "server-snippet";

/// A snippet: its object, field and name, and the directives that may answer.
struct SnippetText {
    origin: Origin,
    field: String,
    name: &'static str,
    directives: Vec<Answering>,
}

impl Teller<'_> {
    /// The directive of a snippet that answers, with its object and line; `None` if no snippet does.
    pub(super) fn by_snippet(&self, plan: &Plan<'_>) -> Option<String> {
        let route = plan.route?;
        match (plan.ended_by()?, plan.step) {
            (Filter::Snippet(snippet), Step::Respond(respond)) => Some(self.responding(plan, route, snippet, respond)),
            (Filter::Snippet(snippet), Step::Redirect(status)) => {
                let (texts, block) = self.texts(plan, route, snippet.of_host);
                let does = Does::Redirect(status);
                let found = self.named(&texts, |one| one.place == block && one.does == does);
                Some(found.unwrap_or_else(|| format!("a snippet redirects with {status}")))
            }
            (Filter::AccessRules(rules), Step::Respond(_)) => Some(self.refusing(plan, route, rules)),
            _ => None,
        }
    }

    fn responding(&self, plan: &Plan<'_>, route: &Route, snippet: &Snippet, respond: &Respond) -> String {
        let (texts, block) = self.texts(plan, route, snippet.of_host);
        // Texts and steps have the same order.
        let Some(number) = responses(&snippet.steps).position(|own| std::ptr::eq(own, respond)) else {
            return "snippets changed the path too often".to_owned();
        };
        let is_response = |one: &&Answering| one.place == block && matches!(one.does, Does::Respond(_));
        let all = texts.iter().flat_map(|text| text.directives.iter().map(move |one| (text, one)));
        match all.filter(|(_, one)| is_response(one)).nth(number) {
            Some((text, one)) if one.does == Does::Respond(respond.status) => self.directive(text, &[one]),
            _ => format!("a snippet answers {}", respond.status),
        }
    }

    fn refusing(&self, plan: &Plan<'_>, route: &Route, rules: &AccessRules) -> String {
        let client = self.rehearsed.scratch.client.address();
        let others = rules.except.as_ref().filter(|own| !own.methods.iter().any(|one| **one == *self.request.method));
        let list = others.map_or(&rules.rules, |own| &own.rules);
        let decides = list.iter().find(|(_, networks)| networks.contains(client));
        let (mut texts, block) = self.texts(plan, route, false);
        texts.extend(self.of_host(plan));
        texts.extend(self.of_settings("http-snippet"));
        let in_block = |place: AnsweringPlace| {
            let (allow, networks) = decides?;
            self.named(&texts, |one| one.place == place && one.does == Does::Rule(*allow, networks.clone()))
        };
        let found = others.and_then(|_| in_block(AnsweringPlace::Except));
        let found = found.or_else(|| in_block(block)).or_else(|| in_block(AnsweringPlace::Top));
        found.unwrap_or_else(|| format!("the client {client} is not allowed by the address lists of the route"))
    }

    /// The texts that steps of a route, or of its host, come from, in order, and the block that holds these steps.
    fn texts(&self, plan: &Plan<'_>, route: &Route, of_host: bool) -> (Vec<SnippetText>, AnsweringPlace) {
        let is_built_in = route.origin.is_built_in() && &*route.origin.name == LOCATION;
        if !of_host && (is_built_in || &*route.origin.section == LOCATION) {
            return (self.of_host(plan), AnsweringPlace::Location(route.rule.clone()));
        }
        if of_host {
            return (self.of_host(plan), AnsweringPlace::Top);
        }
        let own = self.of_ingress(&route.origin, "configuration-snippet");
        (own.into_iter().chain(self.of_settings("location-snippet")).collect(), AnsweringPlace::Top)
    }

    /// The snippets of the host of a request: that of its first Ingress with one, and that of the ConfigMap.
    fn of_host(&self, plan: &Plan<'_>) -> Vec<SnippetText> {
        let routes = plan.host.map(|host| host.routes()).unwrap_or_default();
        let mut own: Vec<(_, SnippetText)> = Vec::new();
        for origin in routes.iter().map(|route| &route.origin) {
            if let Some(text) = self.of_ingress(origin, LOCATION)
                && !own.iter().any(|(_, other)| other.origin == text.origin)
            {
                let key = ObjectKey::new(Kind::Ingress, &*origin.namespace, &*origin.name);
                let created = match self.reading.objects.get(&key) {
                    Some(Object::Ingress(ingress)) => ingress.created(),
                    _ => None,
                };
                // Of two with the same age, the name that is last in the alphabet comes first.
                own.push(((created.is_none(), created, Reverse((key.namespace, key.name))), text));
            }
        }
        own.sort_by(|(one, _), (other, _)| one.cmp(other));
        own.into_iter().map(|(_, text)| text).take(1).chain(self.of_settings(LOCATION)).collect()
    }

    fn of_ingress(&self, origin: &Origin, name: &'static str) -> Option<SnippetText> {
        if &*origin.kind != "Ingress" {
            return None;
        }
        let key = ObjectKey::new(Kind::Ingress, &*origin.namespace, &*origin.name);
        let Some(Object::Ingress(ingress)) = self.reading.objects.get(&key) else { return None };
        let full = annotation::full_name(&self.reading.options.annotations_prefix, name);
        let all = ingress.read().metadata.annotations?;
        let directives = answering(name, all.get(&full)?);
        Some(SnippetText {
            origin: origin.section(""),
            field: format!("metadata.annotations[\"{full}\"]"),
            name,
            directives,
        })
    }

    fn of_settings(&self, name: &'static str) -> Option<SnippetText> {
        let (key, data) = self.reading.settings()?;
        let directives = answering(name, data.get(name)?);
        Some(SnippetText { origin: key.origin(), field: format!("data[\"{name}\"]"), name, directives })
    }

    /// The directives of the first text with some that are meant.
    fn named(&self, texts: &[SnippetText], is_meant: impl Fn(&Answering) -> bool) -> Option<String> {
        texts.iter().find_map(|text| {
            let found: Vec<_> = text.directives.iter().filter(|one| is_meant(one)).collect();
            (!found.is_empty()).then(|| self.directive(text, &found))
        })
    }

    /// One or more directives of a text that do the same.
    fn directive(&self, text: &SnippetText, directives: &[&Answering]) -> String {
        let (file, line) = place(self.reading.manifests.place_of(&text.origin, &text.field));
        let file = at_place(file.as_deref(), line);
        let each: Vec<_> = directives.iter().map(|one| format!("line {}: {}", one.line, one.text)).collect();
        format!("{}{file}, {}, {}", owner(&text.origin), text.name, each.join(", or "))
    }
}

/// The responses of steps, in order.
fn responses(steps: &[SnippetStep]) -> impl Iterator<Item = &Respond> {
    steps
        .iter()
        .flat_map(|step| match step {
            SnippetStep::If(block) => &block.steps[..],
            step => std::slice::from_ref(step),
        })
        .filter_map(|step| match step {
            SnippetStep::Respond(respond) => Some(respond),
            _ => None,
        })
}
