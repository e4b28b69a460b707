//! Which Ingresses are ours: by class, by namespace, and whether a catch-all is allowed; and which namespaces are being deleted.
//!
//! An Ingress of another class gets no route, no status and no diagnostic.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};

use crate::annotation::CLASS;
use crate::options::{LabelSelector, Options};
use crate::standing::NotOurs;

/// The annotation that makes an IngressClass the default.
const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";

/// The state of the cluster that decides which Ingresses are ours.
#[derive(Debug, Default)]
pub(crate) struct Classes {
    /// Every IngressClass, and whether it is ours.
    known: BTreeMap<String, ClassState>,
    /// Namespaces that the selector matches; empty without a selector.
    selected: BTreeSet<String>,
    /// Namespaces that are being deleted.
    leaving: BTreeSet<String>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct ClassState {
    controller: String,
    ours: bool,
    default: bool,
}

impl Classes {
    /// Applies a new or changed IngressClass, or its removal; returns `true` if that can change which Ingresses are ours.
    pub(crate) fn update_class(&mut self, name: &str, class: Option<&IngressClass>, options: &Options) -> bool {
        let state = class.map(|class| ClassState::of(name, class, options));
        match state {
            Some(state) => self.known.insert(name.to_owned(), state.clone()) != Some(state),
            None => self.known.remove(name).is_some(),
        }
    }

    /// Applies a new or changed Namespace, or its removal; returns `true` if that can change which of its Ingresses are ours, or what they
    /// yield.
    pub(crate) fn update_namespace(&mut self, name: &str, namespace: Option<&Namespace>, options: &Options) -> bool {
        let mut note = |set: fn(&mut Self) -> &mut BTreeSet<String>, is: bool| {
            let set = set(self);
            if is { set.insert(name.to_owned()) } else { set.remove(name) }
        };
        let leaves = note(|classes| &mut classes.leaving, namespace.is_some_and(is_leaving));
        let selector = options.namespace_selector.as_ref();
        let selects =
            |selector: &LabelSelector| namespace.is_some_and(|it| selector.selects(it.metadata.labels.as_ref()));
        let selected = selector.is_some_and(|selector| note(|classes| &mut classes.selected, selects(selector)));
        leaves || selected
    }

    /// Whether a namespace is known to be in deletion.
    pub(crate) fn is_leaving(&self, namespace: &str) -> bool {
        self.leaving.contains(namespace)
    }

    /// Whether an Ingress is ours; if not, the reason.
    pub(crate) fn judge(&self, namespace: &str, ingress: &Ingress, options: &Options) -> Result<(), NotOurs> {
        if options.watch_namespace.as_ref().is_some_and(|only| only != namespace) {
            return Err(NotOurs::NamespaceNotWatched);
        }
        if options.namespace_selector.is_some() && !self.selected.contains(namespace) {
            return Err(NotOurs::NamespaceNotSelected);
        }
        let spec = ingress.spec.as_ref();
        match spec.and_then(|spec| spec.ingress_class_name.as_deref()) {
            Some(name) => self.by_name(name, options)?,
            None => self.without_name(ingress, options)?,
        }
        let catch_all = spec.is_some_and(|spec| spec.default_backend.is_some());
        if options.disable_catch_all && catch_all { Err(NotOurs::CatchAll) } else { Ok(()) }
    }

    fn by_name(&self, name: &str, options: &Options) -> Result<(), NotOurs> {
        let class = name.to_owned();
        if !options.ingress_classes_readable {
            return Err(NotOurs::ClassesUnreadable { class });
        }
        match self.known.get(name) {
            Some(state) if state.ours => Ok(()),
            Some(state) => Err(NotOurs::OtherController { class, controller: state.controller.clone() }),
            // Ingress manifests alone are enough to try Fairway.
            None if name == options.ingress_class && options.development.is_some() => Ok(()),
            None => Err(NotOurs::ClassMissing { class }),
        }
    }

    fn without_name(&self, ingress: &Ingress, options: &Options) -> Result<(), NotOurs> {
        let annotation = ingress.metadata.annotations.as_ref().and_then(|all| all.get(CLASS));
        match annotation {
            Some(class) if !class.is_empty() && *class == options.ingress_class => Ok(()),
            Some(class) => {
                let exists = !options.ingress_classes_readable || self.known.contains_key(class);
                Err(NotOurs::OtherAnnotation { class: class.clone(), exists })
            }
            None if options.watch_ingress_without_class || self.is_default(options) => Ok(()),
            None => Err(NotOurs::NoClass),
        }
    }

    fn is_default(&self, options: &Options) -> bool {
        let by_mark = options.default_class_by_mark || options.development.is_some();
        by_mark && self.known.values().any(|class| class.ours && class.default)
    }
}

impl ClassState {
    fn of(name: &str, class: &IngressClass, options: &Options) -> Self {
        let controller = class.spec.as_ref().and_then(|spec| spec.controller.as_deref());
        let by_name = options.ingress_class_by_name && name == options.ingress_class;
        let mark = class.metadata.annotations.as_ref().and_then(|all| all.get(DEFAULT_CLASS));
        Self {
            controller: controller.unwrap_or_default().to_owned(),
            ours: controller == Some(&*options.controller_class) || by_name,
            default: mark.is_some_and(|mark| mark == "true"),
        }
    }
}

/// Whether a namespace is being deleted. Two fields show it, one a moment before the other.
fn is_leaving(namespace: &Namespace) -> bool {
    let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
    namespace.metadata.deletion_timestamp.is_some() || phase == Some("Terminating")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Development;
    use k8s_openapi::api::networking::v1::{IngressClassSpec, IngressSpec};

    fn class(controller: &str, default: bool) -> IngressClass {
        let spec = Some(IngressClassSpec { controller: Some(controller.into()), parameters: None });
        let mut class = IngressClass { spec, ..IngressClass::default() };
        class.metadata.annotations = default.then(|| [(DEFAULT_CLASS.to_owned(), "true".to_owned())].into());
        class
    }

    fn ingress(name: Option<&str>, annotation: Option<&str>) -> Ingress {
        let spec = Some(IngressSpec { ingress_class_name: name.map(Into::into), ..IngressSpec::default() });
        let mut ingress = Ingress { spec, ..Ingress::default() };
        ingress.metadata.annotations = annotation.map(|value| [(CLASS.to_owned(), value.to_owned())].into());
        ingress
    }

    fn classes(options: &Options) -> Classes {
        let mut classes = Classes::default();
        classes.update_class("nginx", Some(&class("example.com/other", false)), options);
        classes.update_class("public", Some(&class("k8s.io/ingress-nginx", true)), options);
        classes
    }

    #[test]
    fn the_class_table_of_ingress_nginx_holds() {
        const OURS: bool = true;
        const FOREIGN: bool = false;
        let plain = Options::default();
        let by_name = Options { ingress_class_by_name: true, ..Options::default() };
        let without = Options { watch_ingress_without_class: true, ..Options::default() };
        let blind = Options { ingress_classes_readable: false, ..Options::default() };
        for (options, name, annotation, expected) in [
            (&plain, Some("public"), None, OURS),
            (&plain, Some("public"), Some("other"), OURS),
            (&plain, Some("nginx"), Some("nginx"), FOREIGN),
            (&plain, Some("gone"), None, FOREIGN),
            (&by_name, Some("nginx"), None, OURS),
            (&plain, None, Some("nginx"), OURS),
            (&plain, None, Some("Nginx"), FOREIGN),
            (&without, None, Some(""), FOREIGN),
            (&plain, None, None, FOREIGN),
            (&without, None, None, OURS),
            (&blind, Some("public"), None, FOREIGN),
            (&blind, None, Some("nginx"), OURS),
        ] {
            let found = classes(options).judge("a", &ingress(name, annotation), options);
            assert_eq!(found.is_ok(), expected, "{name:?} {annotation:?}");
        }
    }

    #[test]
    fn the_default_mark_counts_for_files_only() {
        let options = Options { development: Some(Development::default()), ..Options::default() };
        assert_eq!(classes(&options).judge("a", &ingress(None, None), &options), Ok(()));
        let other = NotOurs::OtherAnnotation { class: "x".into(), exists: false };
        assert_eq!(classes(&options).judge("a", &ingress(None, Some("x")), &options), Err(other));
        let empty = Classes::default();
        assert_eq!(empty.judge("a", &ingress(Some("nginx"), None), &options), Ok(()));
        let plain = Options::default();
        let missing = NotOurs::ClassMissing { class: "nginx".into() };
        assert_eq!(empty.judge("a", &ingress(Some("nginx"), None), &plain), Err(missing));
    }

    #[test]
    fn namespaces_are_chosen_by_name_and_by_label() {
        let mut options = Options { namespace_selector: Some("env=prod".parse().unwrap()), ..Options::default() };
        let ours = ingress(None, Some("nginx"));
        let mut classes = Classes::default();
        assert_eq!(classes.judge("a", &ours, &options), Err(NotOurs::NamespaceNotSelected));
        let mut namespace = Namespace::default();
        namespace.metadata.labels = Some([("env".to_owned(), "prod".to_owned())].into());
        assert!(classes.update_namespace("a", Some(&namespace), &options));
        assert_eq!(classes.judge("a", &ours, &options), Ok(()));
        assert!(classes.update_namespace("a", None, &options));
        namespace.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Default::default()));
        assert!(classes.update_namespace("a", Some(&namespace), &Options::default()) && classes.is_leaving("a"));
        assert!(classes.update_namespace("a", None, &Options::default()) && !classes.is_leaving("a"));
        options = Options { watch_namespace: Some("b".into()), ..Options::default() };
        assert_eq!(classes.judge("a", &ours, &options), Err(NotOurs::NamespaceNotWatched));
    }

    #[test]
    fn catch_alls_can_be_left_out() {
        let options = Options { disable_catch_all: true, ..Options::default() };
        let mut catch_all = ingress(None, Some("nginx"));
        catch_all.spec.as_mut().unwrap().default_backend = Some(Default::default());
        assert_eq!(Classes::default().judge("a", &catch_all, &options), Err(NotOurs::CatchAll));
    }
}
