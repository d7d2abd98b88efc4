//! Inputs for the decoders: JSON, YAML, protobuf, and the query.

use crate::inputs::{
    ANY, ANY_OR_500, CONFIG_MAPS, Input, JSON, PODS, REVIEWS, TOO_LARGE, input, many, named, post, with_metadata,
};

const YAML: &str = "application/yaml";

pub(crate) fn inputs() -> Vec<Input> {
    let mut all = json();
    all.extend(yaml());
    all.extend(protobuf());
    all.extend(queries());
    all
}

fn with_limits(limits: &str) -> String {
    let container = format!("{{\"name\":\"c\",\"image\":\"i\",\"resources\":{{\"limits\":{{{limits}}}}}}}");
    named(&format!("\"spec\":{{\"containers\":[{container}]}}"))
}

fn json() -> Vec<Input> {
    let keys = |count| move || format!("{{{}}}", many(count, |i| format!("\"k{i}\":1")));
    let key = "k".repeat(1_000_000);
    vec![
        post("json: 200,000 unknown keys", REVIEWS, &[422], keys(200_000)),
        post("json: 200,000 unknown keys, strict", &format!("{REVIEWS}?fieldValidation=Strict"), &[400], keys(200_000)),
        post("json: one unknown key 300,000 times", REVIEWS, &[422], || {
            format!("{{{}}}", many(300_000, |_| "\"k\":1".into()))
        }),
        post("json: metadata 200,000 times", REVIEWS, &[422], || {
            format!("{{{}}}", many(200_000, |_| "\"metadata\":{}".into()))
        }),
        post("json: unknown keys below a key of 1 MB", CONFIG_MAPS, ANY_OR_500, move || {
            named(&format!("\"data\":{{\"{key}\":{{{}}}}}", many(100_000, |i| format!("\"k{i}\":1"))))
        }),
        post("json: 3 million brackets", REVIEWS, &[400], || "[".repeat(3_000_000)),
        post("json: 500,000 nested objects", REVIEWS, &[400], || "{\"a\":".repeat(500_000)),
        post("json: unknown nesting", REVIEWS, ANY, || format!("{{\"a\":{}{}}}", "[".repeat(100), "]".repeat(100))),
        post("json: a text of escapes", CONFIG_MAPS, ANY_OR_500, || {
            named(&format!("\"data\":{{\"a\":\"{}\"}}", "\\u0041".repeat(500_000)))
        }),
        post("json: a number of 3 million digits", REVIEWS, ANY, || format!("{{\"a\":{}}}", "1".repeat(3_000_000))),
        post("json: a quantity of 1 million digits", PODS, ANY, || {
            with_limits(&format!("\"cpu\":\"{}\"", "1".repeat(1_000_000)))
        }),
        post("json: a quantity with a huge exponent", PODS, ANY, || {
            with_limits("\"cpu\":\"1e999999999\",\"memory\":\"1E-999999999\"")
        }),
        post("json: wrong types everywhere", PODS, TOO_LARGE, || {
            named(&format!("\"spec\":{{\"containers\":[{}]}}", many(400_000, |_| "[1]".into())))
        }),
        post(
            "json: 1 million numbers in raw JSON",
            "/apis/apps/v1/namespaces/default/controllerrevisions",
            TOO_LARGE,
            || named(&format!("\"revision\":1,\"data\":[{}]", many(1_000_000, |_| "1".into()))),
        ),
        post(
            "json: 300,000 maps in raw JSON",
            "/apis/apps/v1/namespaces/default/controllerrevisions",
            TOO_LARGE,
            || named(&format!("\"revision\":1,\"data\":[{}]", many(300_000, |_| "{\"a\":1}".into()))),
        ),
        post("json: of another kind", REVIEWS, &[400], || {
            format!("{{\"kind\":\"Pod\",\"apiVersion\":\"v1\",{}}}", many(200_000, |i| format!("\"k{i}\":1")))
        }),
        post("json: 100,000 managed fields", CONFIG_MAPS, ANY_OR_500, || {
            with_metadata(&format!("\"managedFields\":[{}]", many(100_000, |_| "{}".into())))
        }),
        input("json: options of a delete", ("DELETE", &format!("{CONFIG_MAPS}/none"), "application/json"), ANY, || {
            format!("{{{}}}", many(200_000, |i| format!("\"k{i}\":1")))
        }),
    ]
}

fn yaml() -> Vec<Input> {
    let yaml = |name: &str, body: fn() -> String| input(name, ("POST", CONFIG_MAPS, YAML), ANY_OR_500, body);
    vec![
        yaml("yaml: 3 million brackets", || "[".repeat(3_000_000)),
        yaml("yaml: 1 million brackets on lines", || "[\n".repeat(1_000_000)),
        yaml("yaml: 700,000 nested maps", || "{a: ".repeat(700_000)),
        yaml("yaml: 1 million nested lists", || "- ".repeat(1_000_000)),
        yaml("yaml: 700,000 explicit keys", || "? ".repeat(1_000_000)),
        yaml("yaml: nested by indentation", || (0..2_000).map(|i| format!("{}a:\n", " ".repeat(i))).collect()),
        yaml("yaml: 150,000 unknown keys", || (0..150_000).map(|i| format!("k{i}: 1\n")).collect()),
        yaml("yaml: 150,000 keys of data", || {
            let keys: String = (0..150_000).map(|i| format!("  k{i}: a\n")).collect();
            format!("metadata: {{name: hostile}}\ndata:\n{keys}")
        }),
        yaml("yaml: one key 300,000 times", || "k: 1\n".repeat(300_000)),
        yaml("yaml: an anchor of 100 KB used 2,000 times", || {
            format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), "*a, ".repeat(2_000))
        }),
        yaml("yaml: a billion laughs", || {
            let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
            for i in 1..30 {
                text.push_str(&format!("a{i}: &a{i} [{}]\n", format!("*a{}, ", i - 1).repeat(10)));
            }
            text
        }),
        yaml("yaml: 700,000 aliases of nothing much", || format!("a: &a x\nb: [{}]\n", "*a, ".repeat(700_000))),
        yaml("yaml: 200,000 anchors", || (0..200_000).map(|i| format!("- &a{i} 1\n")).collect()),
        yaml("yaml: one anchor 500,000 times", || "- &a 1\n".repeat(400_000)),
        yaml("yaml: nested anchors", || {
            (0..120).map(|i| format!("&a{i} [")).collect::<String>() + &"x, ".repeat(900_000)
        }),
        yaml("yaml: merged maps", || {
            let keys = many(5_000, |i| format!("k{i}: 1"));
            format!("a: &a {{{keys}}}\nb:\n{}", "- <<: *a\n".repeat(100_000))
        }),
        yaml("yaml: a plain scalar of 3 MB", || "a ".repeat(1_500_000)),
        yaml("yaml: a plain scalar of 300,000 lines", || "a\n b\n".repeat(300_000)),
        yaml("yaml: a quoted scalar of 3 MB", || format!("\"{}\"", "\\x41".repeat(700_000))),
        yaml("yaml: a block scalar of empty lines", || format!("a: |\n{}", "\n".repeat(3_000_000))),
        yaml("yaml: a folded scalar", || format!("a: >\n{}", "  x\n".repeat(700_000))),
        yaml("yaml: comments", || "# c\n".repeat(700_000)),
        yaml("yaml: colons", || ":".repeat(3_000_000)),
        yaml("yaml: colons and spaces", || ": ".repeat(1_500_000)),
        yaml("yaml: question marks in a flow", || format!("[{}]", "? ".repeat(1_000_000))),
        yaml("yaml: tags", || "- !!str a\n".repeat(300_000)),
        yaml("yaml: flow maps within flow maps", || format!("a: [{}]", "{a: {a: {}}}, ".repeat(220_000))),
        yaml("yaml: 40,000 definitions", || {
            let one = |i| format!("      f{i}:\n        type: object\n        properties: {{a: {{type: string}}}}\n");
            format!("spec:\n  a:\n    b:\n{}", (0..40_000).map(one).collect::<String>())
        }),
        yaml("yaml: directives", || "%TAG ! tag:example.com,2000:\n".repeat(100_000)),
        yaml("yaml: documents", || "---\n".repeat(700_000)),
        yaml("yaml: spaces", || " ".repeat(3_000_000)),
        yaml("yaml: tabs", || "\t".repeat(3_000_000)),
        yaml("yaml: carriage returns", || "\r".repeat(3_000_000)),
        yaml("yaml: quotes", || "'".repeat(3_000_000)),
        yaml("yaml: empty flow maps", || format!("a: [{}]", "{}, ".repeat(700_000))),
        yaml("yaml: numbers", || format!("a: [{}]", "1_0, ".repeat(600_000))),
    ]
}

/// A field of a message: number, and bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(u8::try_from(length & 0x7f).expect("seven bits") | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).expect("seven bits"));
    out.extend_from_slice(bytes);
    out
}

fn object(kind: &str, message: &[u8]) -> Vec<u8> {
    let meta = [field(1, b"v1"), field(2, kind.as_bytes())].concat();
    [b"k8s\0".to_vec(), field(1, &meta), field(2, message)].concat()
}

fn protobuf() -> Vec<Input> {
    let protobuf = |name: &str, path: &str, body: fn() -> Vec<u8>| {
        let content_type = "application/vnd.kubernetes.protobuf";
        Input {
            name: name.into(),
            method: "POST",
            path: path.into(),
            content_type,
            body: Box::new(body),
            codes: ANY_OR_500,
            accept: JSON,
            is_heavy: false,
        }
    };
    vec![
        protobuf("protobuf: 1.4 million empty containers", PODS, || {
            object("Pod", &field(2, &field(2, b"").repeat(1_400_000)))
        }),
        protobuf("protobuf: 1.4 million empty volumes", PODS, || {
            object("Pod", &field(2, &field(1, b"").repeat(1_400_000)))
        }),
        protobuf("protobuf: 700,000 keys of data", CONFIG_MAPS, || {
            let entries = (0..300_000_u32).map(|i| field(2, &field(1, &i.to_be_bytes().map(|b| b'a' + b % 26))));
            object("ConfigMap", &entries.flatten().collect::<Vec<u8>>())
        }),
        protobuf("protobuf: 1 million finalizers", CONFIG_MAPS, || {
            object("ConfigMap", &field(1, &field(14, b"a").repeat(900_000)))
        }),
        protobuf("protobuf: a spec 1 million times", PODS, || object("Pod", &field(2, b"").repeat(1_400_000))),
        protobuf("protobuf: unknown fields", PODS, || object("Pod", &field(15, b"").repeat(1_400_000))),
    ]
}

fn queries() -> Vec<Input> {
    let get = |name: &str, query: String| {
        let path = format!("{CONFIG_MAPS}?{query}");
        input(name, ("GET", &path, ""), ANY, String::new)
    };
    vec![
        get("query: 10,000 keys of a label selector", {
            format!("labelSelector={}", (0..10_000).map(|i| format!("!{i}")).collect::<Vec<_>>().join(","))
        }),
        get("query: 10,000 values of a label selector", {
            format!("labelSelector=a+in+({})", many(10_000, |i| i.to_string()))
        }),
        get("query: operators of a label selector", format!("labelSelector={}", "!".repeat(60_000))),
        get("query: bad values of a label selector", {
            format!("labelSelector=a+in+({})", many(6_000, |i| format!("-{i}-")))
        }),
        get("query: 2,500 fields of a field selector", {
            format!("fieldSelector={}", many(2_500, |i| format!("metadata.name!=n{i}")))
        }),
        get("query: escapes of a field selector", format!("fieldSelector=metadata.name%3D{}", "%5C%5C".repeat(10_000))),
        get("query: 10,000 parameters", (0..10_000).map(|i| format!("p{i}")).collect::<Vec<_>>().join("&")),
    ]
}
