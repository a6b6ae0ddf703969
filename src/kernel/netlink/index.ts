// Links, addresses, routes, rules and neighbours of a network namespace by rtnetlink, over a socket that stays in it.
// Knows the kernel's words and bytes, no policy: what is wanted is decided in netdev/. Start reading at rtnl.ts;
// conversation.ts says how one request is asked and answered, layout.ts and attribute.ts how its bytes are made.
export type { Address, IpFamily, NewAddress } from "./address.ts";
export type { NetlinkPipe } from "./conversation.ts";
export { Devlink, type EswitchMode } from "./devlink.ts";
export { ipFromBytes, ipToBytes } from "./ip.ts";
export { isUpperOf, type Link } from "./link.ts";
export type { Neighbour, NewNeighbour } from "./neighbour.ts";
export { type DefaultRoute, type NewRoute, type Route, RT_TABLE_LOCAL, RT_TABLE_MAIN } from "./route.ts";
export { type CreateLink, type OpenRtnl, Rtnl, type SetLink } from "./rtnl.ts";
export type { NewRule, PortRange, Rule } from "./rule.ts";
export type { VfChange, VfInfo, VfLinkState } from "./virtual-function.ts";
export type { NetlinkEvent, NetlinkGroup } from "./watch.ts";
