//! TaintNodesByCondition: a node starts as not ready, so that no pod lands on it before its kubelet
//! has said otherwise.

use k8s_openapi::api::core::v1::{Node, Taint};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const EFFECT: &str = "NoSchedule";

pub(super) fn admit(node: &mut Node) {
    let taints = node.spec.get_or_insert_default().taints.get_or_insert_default();
    if !taints.iter().any(|t| t.key == NOT_READY && t.effect == EFFECT) {
        taints.push(Taint { key: NOT_READY.to_owned(), effect: EFFECT.to_owned(), ..Taint::default() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_taint_is_added_once() {
        let mut node = Node::default();
        admit(&mut node);
        admit(&mut node);
        let taints = node.spec.unwrap().taints.unwrap();
        assert_eq!(taints.iter().map(|t| t.key.as_str()).collect::<Vec<_>>(), [NOT_READY]);
    }
}
