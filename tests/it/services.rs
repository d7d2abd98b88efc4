//! What Services may and may not take of a node's address, and the Service of cluster DNS.

use crate::cluster::Cluster;
use crate::machine::text;
use crate::notes::wait_for_pods;

pub(crate) const TESTS: &[(&str, fn(&Cluster))] = &[
    ("services_leave_the_nodes_own_ports_alone", own_ports),
    ("services_and_host_ports_have_a_port_once", host_ports),
    ("services_cluster_dns_is_kube_dns", cluster_dns),
];

fn load_balancer(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  type: LoadBalancer\n  \
         selector: {{app: web}}\n  ports: [{{port: {port}, targetPort: 80}}]\n"
    )
}

fn own_ports(c: &Cluster) {
    c.namespace("s1");
    c.kubectl(&["run", "-ns1", "web", "--image=nginx:alpine", "--labels=app=web"]);
    wait_for_pods(c, "s1", "app=web", 1);
    let ip =
        |c: &Cluster, name: &str| c.value("s1", &format!("service/{name}"), "{.status.loadBalancer.ingress[0].ip}");
    let waits = |c: &Cluster, name: &str, why: &str| {
        let object = format!("involvedObject.name={name}");
        c.wait(why, |c| {
            c.kubectl(&["get", "events", "-ns1", "--field-selector", &object, "-o", "jsonpath={.items[*].message}"])
                .contains(why)
        });
        assert_eq!(ip(c, name), "", "{name} waits");
    };
    for (name, port) in [("api", 6443), ("kubelet", 10250)] {
        c.apply("s1", &load_balancer(name, port));
        waits(c, name, &format!("port {port}/TCP is in use by the nodes themselves"));
    }
    c.apply("s1", &load_balancer("first", 8081));
    c.wait("the first Service gets the port", |c| ip(c, "first") == "192.168.77.2");
    c.apply("s1", &load_balancer("second", 8081));
    waits(c, "second", "port 8081/TCP is in use by Service s1/first");
    c.kubectl(&["delete", "service", "-ns1", "first"]);
    c.wait("the second Service gets the port", |c| ip(c, "second") == "192.168.77.2");
    c.wait("it answers", |c| {
        c.fetch_from_lan("http://192.168.77.2:8081").is_some_and(|page| page.contains("Welcome to nginx!"))
    });
    c.apply(
        "s1",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: greedy}\nspec:\n  containers:\n  - {name: c, image: busybox, ports: [{containerPort: 80, hostPort: 6443}]}\n",
    );
    c.wait("the API's port is no host port", |c| {
        c.value("s1", "pod/greedy", "{.status.conditions[0].message}")
            .contains("node(s) didn't have free ports for the requested pod ports")
    });
    c.kubectl(&["delete", "namespace", "s1", "--wait=false"]);
}

fn host_ports(c: &Cluster) {
    c.namespace("s3");
    let pod = |name: &str, port: u16| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  containers:\n  \
             - {{name: c, image: 'nginx:alpine', ports: [{{containerPort: 80, hostPort: {port}}}]}}\n"
        )
    };
    let ip = |c: &Cluster| c.value("s3", "service/web", "{.status.loadBalancer.ingress[0].ip}");
    c.apply("s3", &pod("ingress", 8082));
    wait_for_pods(c, "s3", "app=ingress", 1);
    c.apply("s3", &load_balancer("web", 8082));
    c.wait("the Service waits for the pod", |c| {
        c.kubectl(&["get", "events", "-ns3", "-o", "jsonpath={.items[*].message}"])
            .contains("port 8082/TCP is in use by Pod s3/ingress")
    });
    assert_eq!(ip(c), "");
    c.kubectl(&["delete", "pod", "-ns3", "ingress", "--now"]);
    c.wait("the Service gets the port", |c| ip(c) == "192.168.77.2");
    c.apply("s3", &pod("late", 8082));
    c.wait("the pod waits for the Service", |c| {
        c.value("s3", "pod/late", "{.status.conditions[0].message}")
            .contains("node(s) didn't have free ports for the requested pod ports")
    });
    c.kubectl(&["delete", "service", "-ns3", "web"]);
    wait_for_pods(c, "s3", "app=late", 1);
    c.kubectl(&["delete", "namespace", "s3", "--wait=false"]);
}

fn cluster_dns(c: &Cluster) {
    c.namespace("s2");
    assert_eq!(c.value("kube-system", "service/kube-dns", "{.spec.clusterIP}"), "10.96.0.10");
    c.kubectl(&["run", "-ns2", "client", "--image=busybox", "--labels=app=client", "--", "sleep", "3600"]);
    wait_for_pods(c, "s2", "app=client", 1);
    let answer = c.kubectl(&["exec", "-ns2", "client", "--", "nslookup", "kube-dns.kube-system.svc.cluster.local"]);
    let found = answer.split_once("Name:").is_some_and(|(_, found)| found.contains("10.96.0.10"));
    assert!(found, "{answer}");
    let tcp = c.try_kubectl(&["exec", "-ns2", "client", "--", "sh", "-c", "nc -w 5 10.96.0.10 53 </dev/null"]);
    assert!(tcp.status.success(), "{}", text(&tcp));
    let taken = c.kubectl_stdin(
        &["apply", "-ns2", "-f", "-"],
        "apiVersion: v1\nkind: Service\nmetadata: {name: mine}\nspec: {clusterIP: 10.96.0.10, ports: [{port: 80}]}\n",
    );
    assert!(text(&taken).contains("provided IP is already allocated"), "{}", text(&taken));
    c.kubectl(&["delete", "service", "-nkube-system", "kube-dns"]);
    c.wait("kube-dns comes back", |c| {
        text(&c.try_kubectl(&["get", "service", "-nkube-system", "kube-dns"])).contains("10.96.0.10")
    });
    c.kubectl(&["delete", "namespace", "s2", "--wait=false"]);
}
