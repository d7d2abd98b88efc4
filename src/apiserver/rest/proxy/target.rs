//! Which server a proxied request goes to. Whether it may is for [`super::super::dial`] to say.

use api::object::{GroupResource, Object, ObjectKey};
use k8s_openapi::api::core::v1::{ObjectReference, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use rand::Rng;
use serde::Deserialize;

use super::super::kubelet;
use crate::error::ApiError;
use crate::registry::Registry;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
}

/// What the name in the path says: `name`, `name:port` or `scheme:name:port`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Requested<'a> {
    scheme: Scheme,
    name: &'a str,
    port: &'a str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) scheme: Scheme,
    pub(super) host: String,
    pub(super) port: u16,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The kubelet, reached under the API server's own certificate.
    Kubelet {
        node: String,
        authority: String,
    },
    Address(Address),
}

impl<'a> Requested<'a> {
    /// `None` when it is none of the three forms.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(':');
        let (scheme, name, port) = match (parts.next()?, parts.next(), parts.next(), parts.next()) {
            (name, None, ..) => ("http", name, ""),
            (name, Some(port), None, _) => ("http", name, port),
            (scheme, Some(name), Some(port), None) => (scheme, name, port),
            (_, Some(_), Some(_), Some(_)) => return None,
        };
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" | "" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        (!name.is_empty()).then_some(Self { scheme, name, port })
    }

    fn number(&self) -> Result<u16, ApiError> {
        let number = self.port.parse().ok().filter(|port| *port != 0);
        number.ok_or_else(|| ApiError::BadRequest(format!("invalid port {:?}", self.port)))
    }
}

impl Target {
    /// The host and port that the server's own links may name.
    pub(super) fn authority(&self) -> String {
        match self {
            Self::Kubelet { authority, .. } => authority.clone(),
            Self::Address(Address { host, port, .. }) => kubelet::authority(host, *port),
        }
    }
}

pub(super) fn of_node(registry: &Registry, requested: &Requested<'_>) -> Result<Target, ApiError> {
    let endpoint = kubelet::locate(registry, requested.name)?;
    if requested.port.is_empty() || requested.port == endpoint.port.to_string() {
        let authority = kubelet::authority(&endpoint.host, endpoint.port);
        return Ok(Target::Kubelet { node: requested.name.to_owned(), authority });
    }
    let port = requested.number()?;
    Ok(Target::Address(Address { scheme: requested.scheme, host: endpoint.host, port }))
}

pub(super) fn of_pod(registry: &Registry, namespace: &str, requested: &Requested<'_>) -> Result<Target, ApiError> {
    let pods = GroupResource::new("", "pods");
    let pod = registry.get(&pods, &ObjectKey::new(namespace, requested.name));
    let pod = pod.ok_or_else(|| ApiError::not_found(&pods, requested.name))?;
    in_pod(&pod.decode().map_err(ApiError::internal)?, requested).map(Target::Address)
}

/// Where a pod is reached; the rest of it, which may be large, is skipped.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Pod {
    spec: PodSpec,
    status: PodStatus,
}

api::decode!(Pod);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PodSpec {
    containers: Vec<Container>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Container {
    ports: Vec<ContainerPort>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerPort {
    container_port: i32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PodStatus {
    #[serde(rename = "podIP")]
    pod_ip: String,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<PodIp>,
}

#[derive(Debug, Deserialize)]
struct PodIp {
    ip: String,
}

fn in_pod(pod: &Pod, requested: &Requested<'_>) -> Result<Address, ApiError> {
    let mut ports = pod.spec.containers.iter().filter_map(|container| container.ports.first());
    let declared = ports.next().map(|port| port.container_port);
    let port = match (declared, requested.scheme) {
        _ if !requested.port.is_empty() => requested.number()?,
        (Some(port), _) => u16::try_from(port).map_err(ApiError::internal)?,
        (None, Scheme::Http) => 80,
        (None, Scheme::Https) => 443,
    };
    Ok(Address { scheme: requested.scheme, host: pod.status.pod_ip.clone(), port })
}

pub(super) fn of_service(registry: &Registry, namespace: &str, requested: &Requested<'_>) -> Result<Target, ApiError> {
    let services = GroupResource::new("", "services");
    let name = requested.name;
    let service = registry.get(&services, &ObjectKey::new(namespace, name));
    let service: Service =
        service.ok_or_else(|| ApiError::not_found(&services, name))?.decode().map_err(ApiError::internal)?;
    let port_name = port_name(&service, requested)?;
    let slices: Vec<EndpointSlice> = registry
        .list(&GroupResource::new("discovery.k8s.io", "endpointslices"), Some(namespace))
        .iter()
        .filter(|s| s.index.labels.get("kubernetes.io/service-name").is_some_and(|n| **n == *name))
        .map(Object::decode)
        .collect::<Result<_, _>>()
        .map_err(ApiError::internal)?;
    let pods = GroupResource::new("", "pods");
    let addresses_of = |reference: &ObjectReference| {
        let key = ObjectKey::new(namespace, reference.name.as_deref().unwrap_or_default());
        let here = reference.namespace.as_deref() == Some(namespace);
        let pod: Option<Pod> = registry.get(&pods, &key).filter(|_| here).and_then(|p| p.decode().ok());
        pod.unwrap_or_default().status.pod_ips.into_iter().map(|ip| ip.ip).collect()
    };
    let mut ready = ready_endpoints(&slices, &port_name, &addresses_of);
    if ready.is_empty() {
        return Err(ApiError::ServiceUnavailable(format!("no endpoints available for service {name:?}")));
    }
    let (host, port) = ready.swap_remove(rand::rng().random_range(0..ready.len()));
    Ok(Target::Address(Address { scheme: requested.scheme, host, port }))
}

/// The name of the service's port that was numbered; a name is taken as it is.
fn port_name(service: &Service, requested: &Requested<'_>) -> Result<String, ApiError> {
    let Ok(number) = requested.port.parse::<i32>() else { return Ok(requested.port.to_owned()) };
    let ports = service.spec.as_ref().and_then(|s| s.ports.as_deref()).unwrap_or_default();
    let found = ports.iter().find(|p| p.port == number).map(|p| p.name.clone().unwrap_or_default());
    let missing = || format!("no service port {number} found for service {:?}", requested.name);
    found.ok_or_else(|| ApiError::ServiceUnavailable(missing()))
}

/// Endpoints that are pods, as upstream has it (`isValidAddress` of its Service storage): an endpoint names a
/// pod of the Service's namespace and has an address of that pod. Whoever may write endpoints does not reach
/// other addresses through here, the node's own among them.
fn ready_endpoints(
    slices: &[EndpointSlice],
    port_name: &str,
    addresses_of: &dyn Fn(&ObjectReference) -> Vec<String>,
) -> Vec<(String, u16)> {
    let mut ready = Vec::new();
    for slice in slices {
        let port = slice.ports.iter().flatten().find(|p| p.name.as_deref().unwrap_or_default() == port_name);
        let Some(port) = port.and_then(|p| p.port).and_then(|p| u16::try_from(p).ok()) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let is_ready = endpoint.conditions.as_ref().is_none_or(|c| c.ready != Some(false));
            let Some(reference) = endpoint.target_ref.as_ref().filter(|_| is_ready) else { continue };
            let own = addresses_of(reference);
            ready.extend(endpoint.addresses.iter().filter(|a| own.contains(a)).map(|a| (a.clone(), port)));
        }
    }
    ready
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn requested(text: &str) -> Requested<'_> {
        Requested::parse(text).unwrap()
    }

    #[test]
    fn names_carry_scheme_and_port() {
        #[track_caller]
        fn check(text: &str, scheme: Scheme, name: &str, port: &str) {
            assert_eq!(Requested::parse(text), Some(Requested { scheme, name, port }), "{text}");
        }
        check("web", Scheme::Http, "web", "");
        check("web:80", Scheme::Http, "web", "80");
        check("https:web:", Scheme::Https, "web", "");
        check("HTTP:web:http", Scheme::Http, "web", "http");
        for bad in ["ftp:web:1", "", ":80", "http:web:80:x"] {
            assert_eq!(Requested::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_pod_is_asked_at_its_first_declared_port() {
        #[track_caller]
        fn check(text: &str, ports: &Value, ip: &str, expected: Result<(Scheme, u16), &str>) {
            let pod: Pod = serde_json::from_value(json!({"metadata": {}, "status": {"podIP": ip},
                "spec": {"containers": [{"name": "a"}, {"name": "b", "ports": ports}]}}))
            .unwrap();
            let got = in_pod(&pod, &requested(text)).map(|a| (a.scheme, a.port)).map_err(|e| e.to_string());
            assert_eq!(got, expected.map_err(str::to_owned), "{text}");
        }
        let ports = json!([{"containerPort": 8080}, {"containerPort": 8081}]);
        check("p", &ports, "10.0.0.1", Ok((Scheme::Http, 8080)));
        check("p:81", &ports, "10.0.0.1", Ok((Scheme::Http, 81)));
        check("https:p:", &json!([]), "10.0.0.1", Ok((Scheme::Https, 443)));
        check("p", &json!([]), "10.0.0.1", Ok((Scheme::Http, 80)));
        check("p:web", &ports, "10.0.0.1", Err("invalid port \"web\""));
    }

    #[test]
    fn a_service_leads_to_its_ready_pods() {
        let service: Service = serde_json::from_value(
            json!({"metadata": {}, "spec": {"ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53}]}}),
        )
        .unwrap();
        assert_eq!(port_name(&service, &requested("s:80")).unwrap(), "http");
        assert_eq!(port_name(&service, &requested("s:dns")).unwrap(), "dns");
        assert_eq!(port_name(&service, &requested("s")).unwrap(), "");
        let error = port_name(&service, &requested("s:81")).unwrap_err();
        assert_eq!(error.to_string(), "no service port 81 found for service \"s\"");
        let pod = |name: &str| json!({"kind": "Pod", "name": name, "namespace": "ns"});
        let slice: EndpointSlice = serde_json::from_value(json!({
            "addressType": "IPv4", "metadata": {}, "ports": [{"name": "http", "port": 8080}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "targetRef": pod("a")},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false}, "targetRef": pod("b")},
                {"addresses": ["10.0.0.3"], "targetRef": pod("a")},
                {"addresses": ["10.0.0.4"]},
                {"addresses": ["127.0.0.1"], "targetRef": pod("a")},
                {"addresses": ["::ffff:10.0.0.1"], "targetRef": pod("a")}]}))
        .unwrap();
        let addresses_of = |reference: &ObjectReference| match reference.name.as_deref() {
            Some("a") => vec!["10.0.0.1".to_owned()],
            _ => vec!["10.0.0.2".to_owned()],
        };
        let slices = [slice];
        assert_eq!(ready_endpoints(&slices, "http", &addresses_of), [("10.0.0.1".to_owned(), 8080)]);
        assert!(ready_endpoints(&slices, "dns", &addresses_of).is_empty());
    }
}
