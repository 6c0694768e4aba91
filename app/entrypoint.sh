#!/bin/sh
# Runs a command of the image with the passwords and certificates that `hyblink secrets` made, where SECRETS_FILE names them.
set -eu
if [ -n "${SECRETS_FILE:-}" ]; then
  . "$SECRETS_FILE"
fi
exec "$@"
