# SPDX-License-Identifier: Apache-2.0
FROM debian:bookworm-slim AS build
COPY packaging/need /need
RUN /need build
WORKDIR /source
COPY . .
RUN meson setup /build . -Dtests=disabled '-Ddefault_listen=0.0.0.0:53, [::]:53' && ninja -C /build dnsproxy
# Nothing but the program, the libraries that its loader names, the certificate store, and who it runs as.
RUN set -eu; mkdir -p /image/etc/ssl/certs; \
    cp /build/dnsproxy /image/dnsproxy; strip /image/dnsproxy; \
    ldd /image/dnsproxy | grep -o '/[^ ]*' | xargs -I LIBRARY cp --parents -L LIBRARY /image; \
    cp -L /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/; \
    echo 'dnsproxy:x:65532:65532::/:/dnsproxy' >/image/etc/passwd; \
    echo 'dnsproxy:x:65532:' >/image/etc/group; \
    chroot /image /dnsproxy --version

FROM scratch
COPY --from=build /image/ /
USER 65532:65532
EXPOSE 53/udp 53/tcp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=5s --retries=3 CMD ["/dnsproxy", "health"]
ENTRYPOINT ["/dnsproxy"]
