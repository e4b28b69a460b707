//! GatewayParameters (`fairway.dev/v1alpha1`) as plain data, beside RoutePolicy because its CRD is generated in the same way (`schema`): what
//! `infrastructure.parametersRef` of a Gateway may name.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{Metadata, NamespaceResourceScope, Resource};
use serde::{Deserialize, Serialize};

use super::schema::{Listed, Record, choices, records, texts};
use crate::gateway::api::{Anything, kind};

kind!(GatewayParameters, "gatewayparameters", NamespaceResourceScope, GatewayParametersSpec, "fairway.dev", "v1alpha1");

records! {
    /// What a Gateway with an address of its own wants beyond its own fields.
    GatewayParametersSpec {
        /// Fields of the Service that is made for the Gateway.
        service: Option<ServiceParameters>,
    }

    /// Fields of the Service of a Gateway, by the names that they have there.
    ServiceParameters {
        /// The class of the load balancer.
        load_balancer_class: Option<LoadBalancerClass>,
        /// Which endpoints of the proxy get connections from outside.
        external_traffic_policy: Option<TrafficPolicy>,
        /// Which kinds of addresses it has.
        ip_family_policy: Option<FamilyPolicy>,
        /// Whether it gets ports of the nodes too.
        allocate_load_balancer_node_ports: Option<bool>,
        /// Networks that may connect; all by default.
        load_balancer_source_ranges: Option<Listed<SourceRange, 1, 256>>,
    }
    rules {
        "has(self.loadBalancerClass) || has(self.externalTrafficPolicy) || has(self.ipFamilyPolicy) || has(self.allocateLoadBalancerNodePorts) || has(self.loadBalancerSourceRanges)"
            => "a field must be there",
    }
}

texts! {
    /// The name of a class of load balancers, perhaps with a domain before it.
    LoadBalancerClass(1, 317, "^[-a-zA-Z0-9_./]+$");
    /// A network (CIDR), of IPv4 or IPv6.
    SourceRange(4, 64, "^[0-9A-Fa-f:.]+/[0-9]{1,3}$");
}

choices! {
    /// Which endpoints get connections.
    TrafficPolicy { "Cluster" "Local" }
    /// Which kinds of addresses there are.
    FamilyPolicy { "SingleStack" "PreferDualStack" "RequireDualStack" }
}
