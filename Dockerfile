# The forwarder as a container image; README.md, "Build", says how to use the targets.
#   runtime (default)  the program on a bare root: no shell, no package manager, no compiler, no debugger
#   test               runs all tests that the container's privileges allow
#   debug              the same tests under the Node inspector on port 40000
# Any Debian or Ubuntu with Node 24 and npm will do as the base; pin it by digest where builds must be the same for ever.
ARG NODE_IMAGE=node:24-bookworm-slim

FROM ${NODE_IMAGE} AS build
WORKDIR /build
# Packages first, from the lock file alone: this layer stays as long as that file does.
COPY package.json package-lock.json .npmrc ./
COPY tools/run.mjs tools/
RUN node tools/run.mjs
COPY . .
RUN node tools/run.mjs tools/build.ts

# The root of the runtime image: Node, the libraries that it is linked to, and the program with its one native package.
FROM build AS root
RUN set -eu; \
    node=$(readlink -f "$(command -v node)"); \
    app=/root-fs/opt/forwarder; \
    mkdir -p /root-fs/bin /root-fs/usr/bin "$app"; \
    install -d -m 1777 /root-fs/tmp; \
    install -m 755 "$node" /root-fs/bin/node; \
    # `env -S` hands the flags in the program's first line to Node. \
    install -m 755 "$(command -v env)" /root-fs/bin/env; \
    ln -s /bin/env /root-fs/usr/bin/env; \
    for library in $(ldd "$node" /root-fs/bin/env | grep -o '/[^ ]*\.so[^ ]*' | sort -u); do \
      install -D -m 755 "$(readlink -f "$library")" "/root-fs$library"; \
    done; \
    cp -r dist "$app"; \
    find node_modules/koffi node_modules/@koromix/koffi-linux-* \( -name package.json -o -name '*.js' -o -path '*/linux_*/koffi.node' \) \
      -exec cp --parents -t "$app" {} +; \
    ln -s /opt/forwarder/dist/forwarder.mjs /root-fs/bin/forwarder; \
    # Any time would do; the same time makes the same layer of the same files. \
    find /root-fs -exec touch --no-dereference --date=@0 {} +

FROM build AS test
RUN apt-get update \
 && apt-get install --yes --no-install-recommends iproute2 netbase python3 util-linux \
 && rm -rf /var/lib/apt/lists/*
CMD ["node", "tools/run.mjs", "tools/test.ts"]

FROM test AS debug
EXPOSE 40000
ENV PATH=/build/node_modules/.bin:$PATH
# One process for all of them, so that one debugger sees them all, and with them the forwarder that they start.
CMD ["node", "--inspect-brk=0.0.0.0:40000", "--test", "--test-isolation=none", "{src,tools,sandbox,bench,test}/**/*.test.ts"]

FROM scratch AS runtime
COPY --from=root /root-fs /
ENV PATH=/bin
ENTRYPOINT ["/bin/forwarder"]
