//! The rules that the restricted level adds to the baseline.

use k8s_openapi::api::core::v1::{PodSpec, Volume};

use super::{View, Violation, containers, names_where, quoted, views};

/// The violations in upstream's order.
pub(super) fn judge(spec: &PodSpec) -> Vec<Violation> {
    let views = views(spec);
    [
        privilege_escalation(&views),
        capabilities(&views),
        volumes(spec),
        run_as_non_root(spec, &views),
        run_as_user(spec, &views),
        seccomp(spec, &views),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn privilege_escalation(views: &[View<'_>]) -> Option<Violation> {
    let bad = names_where(views, |v| v.context.and_then(|c| c.allow_privilege_escalation) != Some(false));
    (!bad.is_empty()).then(|| {
        let detail = format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&bad));
        Violation::new("allowPrivilegeEscalation != false", detail)
    })
}

fn capabilities(views: &[View<'_>]) -> Option<Violation> {
    let list = |v: &View<'_>, drop: bool| -> Vec<String> {
        let capabilities = v.context.and_then(|c| c.capabilities.clone()).unwrap_or_default();
        (if drop { capabilities.drop } else { capabilities.add }).unwrap_or_default()
    };
    let added =
        |v: &View<'_>| -> Vec<String> { list(v, false).into_iter().filter(|c| c != "NET_BIND_SERVICE").collect() };
    let keepers = names_where(views, |v| !list(v, true).iter().any(|c| c == "ALL"));
    let adders = names_where(views, |v| !added(v).is_empty());
    let mut all: Vec<String> = views.iter().flat_map(added).collect();
    all.sort();
    all.dedup();
    let mut details = Vec::new();
    if !keepers.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&keepers)));
    }
    if !adders.is_empty() {
        details.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            containers(&adders),
            quoted(&all)
        ));
    }
    (!details.is_empty()).then(|| Violation::new("unrestricted capabilities", details.join("; ")))
}

fn volumes(spec: &PodSpec) -> Option<Violation> {
    let bad: Vec<(&str, String)> =
        spec.volumes.iter().flatten().filter_map(|v| Some((v.name.as_str(), restricted_type(v)?))).collect();
    let names: Vec<&str> = bad.iter().map(|(name, _)| *name).collect();
    let mut types: Vec<&str> = bad.iter().map(|(_, kind)| kind.as_str()).collect();
    types.sort_unstable();
    types.dedup();
    let (volume, uses) = if names.len() == 1 { ("volume", "uses") } else { ("volumes", "use") };
    let plural = if types.len() == 1 { "type" } else { "types" };
    (!bad.is_empty()).then(|| {
        let detail = format!("{volume} {} {uses} restricted volume {plural} {}", quoted(&names), quoted(&types));
        Violation::new("restricted volume types", detail)
    })
}

/// The source's field name, unless it is one of those that reach nothing outside of the API.
fn restricted_type(volume: &Volume) -> Option<String> {
    let allowed = volume.config_map.is_some()
        || volume.csi.is_some()
        || volume.downward_api.is_some()
        || volume.empty_dir.is_some()
        || volume.ephemeral.is_some()
        || volume.image.is_some()
        || volume.persistent_volume_claim.is_some()
        || volume.projected.is_some()
        || volume.secret.is_some();
    if allowed {
        return None;
    }
    // It is refused in any case; its source is only named.
    let value = serde_json::to_value(volume).ok();
    let kind = value.as_ref().and_then(|v| v.as_object()?.keys().find(|k| *k != "name").cloned());
    Some(kind.unwrap_or_else(|| "unknown".to_owned()))
}

fn run_as_non_root(spec: &PodSpec, views: &[View<'_>]) -> Option<Violation> {
    let own = spec.security_context.as_ref().and_then(|c| c.run_as_non_root);
    let of = |v: &View<'_>| v.context.and_then(|c| c.run_as_non_root);
    let mut bad_setters = Vec::new();
    if own == Some(false) {
        bad_setters.push("pod".to_owned());
    }
    let explicit = names_where(views, |v| of(v) == Some(false));
    if !explicit.is_empty() {
        bad_setters.push(containers(&explicit));
    }
    let mut details = Vec::new();
    if !bad_setters.is_empty() {
        details.push(format!("{} must not set securityContext.runAsNonRoot=false", bad_setters.join(" and ")));
    }
    // A container without a word of its own is covered by the pod's.
    let implicit = names_where(views, |v| of(v).is_none() && own != Some(true));
    if details.is_empty() && !implicit.is_empty() {
        details.push(format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&implicit)));
    }
    (!details.is_empty()).then(|| Violation::new("runAsNonRoot != true", details.join("; ")))
}

fn run_as_user(spec: &PodSpec, views: &[View<'_>]) -> Option<Violation> {
    let mut setters = Vec::new();
    if spec.security_context.as_ref().and_then(|c| c.run_as_user) == Some(0) {
        setters.push("pod".to_owned());
    }
    let bad = names_where(views, |v| v.context.and_then(|c| c.run_as_user) == Some(0));
    if !bad.is_empty() {
        setters.push(containers(&bad));
    }
    (!setters.is_empty())
        .then(|| Violation::new("runAsUser=0", format!("{} must not set runAsUser=0", setters.join(" and "))))
}

fn seccomp(spec: &PodSpec, views: &[View<'_>]) -> Option<Violation> {
    let allowed = |kind: &str| matches!(kind, "RuntimeDefault" | "Localhost");
    let own = spec.security_context.as_ref().and_then(|c| c.seccomp_profile.as_ref()).map(|p| p.type_.as_str());
    fn of<'p>(v: &View<'p>) -> Option<&'p str> {
        v.context.and_then(|c| c.seccomp_profile.as_ref()).map(|p| p.type_.as_str())
    }
    let mut setters = Vec::new();
    if own.is_some_and(|k| !allowed(k)) {
        setters.push("pod".to_owned());
    }
    let explicit = names_where(views, |v| of(v).is_some_and(|k| !allowed(k)));
    if !explicit.is_empty() {
        setters.push(containers(&explicit));
    }
    let types = "\"RuntimeDefault\" or \"Localhost\"";
    let detail = if setters.is_empty() {
        let implicit = names_where(views, |v| of(v).is_none() && !own.is_some_and(allowed));
        if implicit.is_empty() {
            return None;
        }
        format!("pod or {} must set securityContext.seccompProfile.type to {types}", containers(&implicit))
    } else {
        format!("{} must not set securityContext.seccompProfile.type to \"Unconfined\"", setters.join(" and "))
    };
    Some(Violation::new("seccompProfile", detail))
}
