//! Which Ingresses are ours: by class, by namespace, and whether a catch-all is allowed.
//!
//! An Ingress of another class gets no route, no status and no diagnostic.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};

use crate::annotation::CLASS;
use crate::options::Options;

/// The annotation by which an IngressClass is the default one.
const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";

/// What of the cluster decides who is ours.
#[derive(Debug, Default)]
pub(crate) struct Classes {
    /// Every IngressClass, and whether it is ours.
    known: BTreeMap<String, ClassState>,
    /// Namespaces that the selector takes; empty without one.
    selected: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct ClassState {
    ours: bool,
    default: bool,
}

/// Whether an Ingress is ours.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Membership {
    /// It is.
    Ours,
    /// It is not, and that is nobody's mistake.
    Foreign,
    /// It names the class that would be ours, but there is no such IngressClass.
    ClassMissing,
    /// It is, but it is a catch-all and those are not served.
    CatchAll,
}

impl Classes {
    /// Takes a new or changed IngressClass, or its end; `true` if that can change who is ours.
    pub(crate) fn update_class(&mut self, name: &str, class: Option<&IngressClass>, options: &Options) -> bool {
        let state = class.map(|class| ClassState::of(name, class, options));
        match state {
            Some(state) => self.known.insert(name.to_owned(), state) != Some(state),
            None => self.known.remove(name).is_some(),
        }
    }

    /// Takes a new or changed Namespace, or its end; `true` if that can change which of its Ingresses are ours.
    pub(crate) fn update_namespace(&mut self, name: &str, namespace: Option<&Namespace>, options: &Options) -> bool {
        let Some(selector) = &options.namespace_selector else { return false };
        let selected = namespace.is_some_and(|namespace| selector.selects(namespace.metadata.labels.as_ref()));
        if selected { self.selected.insert(name.to_owned()) } else { self.selected.remove(name) }
    }

    /// Whether an Ingress is ours.
    pub(crate) fn membership(&self, namespace: &str, ingress: &Ingress, options: &Options) -> Membership {
        let watched = options.watch_namespace.as_ref().is_none_or(|only| only == namespace);
        let selected = options.namespace_selector.is_none() || self.selected.contains(namespace);
        if !watched || !selected {
            return Membership::Foreign;
        }
        let spec = ingress.spec.as_ref();
        let membership = match spec.and_then(|spec| spec.ingress_class_name.as_deref()) {
            Some(name) => self.by_name(name, options),
            None => self.without_name(ingress, options),
        };
        let catch_all = spec.is_some_and(|spec| spec.default_backend.is_some());
        if membership == Membership::Ours && options.disable_catch_all && catch_all {
            return Membership::CatchAll;
        }
        membership
    }

    fn by_name(&self, name: &str, options: &Options) -> Membership {
        if !options.ingress_classes_readable {
            return Membership::Foreign;
        }
        match self.known.get(name) {
            Some(class) if class.ours => Membership::Ours,
            Some(_) => Membership::Foreign,
            None if name != options.ingress_class => Membership::Foreign,
            // Ingress manifests alone are enough to try them.
            None if options.development.is_some() => Membership::Ours,
            None => Membership::ClassMissing,
        }
    }

    fn without_name(&self, ingress: &Ingress, options: &Options) -> Membership {
        let annotation = ingress.metadata.annotations.as_ref().and_then(|all| all.get(CLASS));
        let ours = match annotation {
            Some(class) => !class.is_empty() && *class == options.ingress_class,
            None => options.watch_ingress_without_class || self.is_default(options),
        };
        if ours { Membership::Ours } else { Membership::Foreign }
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
            ours: controller == Some(&*options.controller_class) || by_name,
            default: mark.is_some_and(|mark| mark == "true"),
        }
    }
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
        use Membership::{Foreign, Ours};
        let plain = Options::default();
        let by_name = Options { ingress_class_by_name: true, ..Options::default() };
        let without = Options { watch_ingress_without_class: true, ..Options::default() };
        let blind = Options { ingress_classes_readable: false, ..Options::default() };
        for (options, name, annotation, expected) in [
            (&plain, Some("public"), None, Ours),
            (&plain, Some("public"), Some("other"), Ours),
            (&plain, Some("nginx"), Some("nginx"), Foreign),
            (&plain, Some("gone"), None, Foreign),
            (&by_name, Some("nginx"), None, Ours),
            (&plain, None, Some("nginx"), Ours),
            (&plain, None, Some("Nginx"), Foreign),
            (&without, None, Some(""), Foreign),
            (&plain, None, None, Foreign),
            (&without, None, None, Ours),
            (&blind, Some("public"), None, Foreign),
            (&blind, None, Some("nginx"), Ours),
        ] {
            let found = classes(options).membership("a", &ingress(name, annotation), options);
            assert_eq!(found, expected, "{name:?} {annotation:?}");
        }
    }

    #[test]
    fn the_default_mark_counts_for_files_only() {
        let options = Options { development: Some(Development::default()), ..Options::default() };
        assert_eq!(classes(&options).membership("a", &ingress(None, None), &options), Membership::Ours);
        assert_eq!(classes(&options).membership("a", &ingress(None, Some("x")), &options), Membership::Foreign);
        let empty = Classes::default();
        assert_eq!(empty.membership("a", &ingress(Some("nginx"), None), &options), Membership::Ours);
        let plain = Options::default();
        assert_eq!(empty.membership("a", &ingress(Some("nginx"), None), &plain), Membership::ClassMissing);
    }

    #[test]
    fn namespaces_are_chosen_by_name_and_by_label() {
        let mut options = Options { namespace_selector: Some("env=prod".parse().unwrap()), ..Options::default() };
        let ours = ingress(None, Some("nginx"));
        let mut classes = Classes::default();
        assert_eq!(classes.membership("a", &ours, &options), Membership::Foreign);
        let mut namespace = Namespace::default();
        namespace.metadata.labels = Some([("env".to_owned(), "prod".to_owned())].into());
        assert!(classes.update_namespace("a", Some(&namespace), &options));
        assert_eq!(classes.membership("a", &ours, &options), Membership::Ours);
        assert!(classes.update_namespace("a", None, &options));
        options = Options { watch_namespace: Some("b".into()), ..Options::default() };
        assert_eq!(classes.membership("a", &ours, &options), Membership::Foreign);
    }

    #[test]
    fn catch_alls_can_be_left_out() {
        let options = Options { disable_catch_all: true, ..Options::default() };
        let mut catch_all = ingress(None, Some("nginx"));
        catch_all.spec.as_mut().unwrap().default_backend = Some(Default::default());
        assert_eq!(Classes::default().membership("a", &catch_all, &options), Membership::CatchAll);
    }
}
