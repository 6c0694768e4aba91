#!/bin/bash
# Starts the node with TLS and a password from /secrets/opensearch, which `hyblink secrets` made. Without the security plugin
# (DISABLE_SECURITY_PLUGIN=true) it starts as the official image does.
set -euo pipefail
cd /usr/share/opensearch
if [ "${DISABLE_SECURITY_PLUGIN:-false}" != true ]; then
  secrets=/secrets/opensearch
  mkdir -p config/tls
  cp "$secrets"/*.pem config/tls/
  hash=$(bash plugins/opensearch-security/tools/hash.sh -p "$(cat "$secrets/password")" | tail -n 1)
  cat > config/opensearch-security/internal_users.yml <<USERS
---
_meta:
  type: internalusers
  config_version: 2
hyblink:
  hash: "$hash"
  reserved: false
  backend_roles: [admin]
USERS
  if ! grep -q '^plugins.security.ssl.http.enabled' config/opensearch.yml; then
    cat >> config/opensearch.yml <<CONFIG

plugins.security.ssl.http.enabled: true
plugins.security.ssl.http.pemcert_filepath: tls/server.pem
plugins.security.ssl.http.pemkey_filepath: tls/server-key.pem
plugins.security.ssl.http.pemtrustedcas_filepath: tls/ca.pem
plugins.security.ssl.transport.pemcert_filepath: tls/server.pem
plugins.security.ssl.transport.pemkey_filepath: tls/server-key.pem
plugins.security.ssl.transport.pemtrustedcas_filepath: tls/ca.pem
plugins.security.ssl.transport.enforce_hostname_verification: false
plugins.security.nodes_dn: ["CN=opensearch"]
plugins.security.allow_default_init_securityindex: true
CONFIG
  fi
fi
exec ./opensearch-docker-entrypoint.sh "$@"
