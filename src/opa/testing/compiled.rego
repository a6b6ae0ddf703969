# A policy of one's own, as a test's fixture; beside it is what OPA 1.22.4 makes of it:
#   opa build -t wasm -e nsm/valid compiled.rego && tar -xzf bundle.tar.gz /policy.wasm
package nsm

default valid := false

# What the registry answers is signed by the manager, for whom our own token is, and is still good.
valid if {
	startswith(input.resource_name, "forwarder")
	count(object.get(input.resource_path_ids_map, input.resource_name, [])) < 3
	[header, ours, _] := io.jwt.decode(input.path_segments[input.index].token)
	header.alg == "ES256"
	input.resource_id == ours.sub
	answer := input.path_segments[input.index + 1].token
	[_, theirs, _] := io.jwt.decode(answer)
	theirs.sub in ours.aud
	time.now_ns() / 1e9 < theirs.exp
	io.jwt.verify_es256(answer, input.auth_info.certificate)
}

# Goes on for years, within a pattern that backtracks.
valid if {
	input.resource_name == "slow"
	count(regex.split("(a+)+$", sprintf("%sb", [concat("", [letter | some _ in numbers.range(1, 64); letter := "a"])]))) == 9
}

# Wants gigabytes.
valid if {
	input.resource_name == "large"
	count(numbers.range(1, 100000000)) == 1
}

# Is no answer.
valid := "perhaps" if input.resource_name == "odd"
