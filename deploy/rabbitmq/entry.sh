#!/bin/bash
# Writes RabbitMQ's definitions, with the users' hashed passwords from the environment, and starts it.
# Users, rights and policies that are there already are brought to what stands here at each start.
set -euo pipefail

required() {
  for name in "$@"; do
    [ -n "${!name:-}" ] || { echo "Set $name (see .env.example)." >&2; exit 1; }
  done
}

# RabbitMQ's own form: base64 of a salt of four bytes and the SHA-256 of salt and password.
hashed() {
  local salt digest
  salt=$(od -An -N2 -tx1 /dev/urandom | tr -d ' \n')
  digest=$(printf '%s%s' "$salt" "$1" | sha256sum | cut -c 1-64 | sed 's/../\\x&/g')
  { printf '%s' "$salt"; printf '%b' "$digest"; } | base64 -w 0
}

required RABBITMQ_ADMIN_PASSWORD RABBITMQ_API_PASSWORD RABBITMQ_BOT_PASSWORD RABBITMQ_DELIVER_PASSWORD \
  RABBITMQ_PUBLISHER_PASSWORD RABBITMQ_ERLANG_COOKIE
# Where nobody reads along, nobody knows the reader's password.
: "${RABBITMQ_READER_PASSWORD:=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')}"
sed -e "s|{admin}|$(hashed "$RABBITMQ_ADMIN_PASSWORD")|" \
    -e "s|{api}|$(hashed "$RABBITMQ_API_PASSWORD")|" \
    -e "s|{bot}|$(hashed "$RABBITMQ_BOT_PASSWORD")|" \
    -e "s|{deliver}|$(hashed "$RABBITMQ_DELIVER_PASSWORD")|" \
    -e "s|{publisher}|$(hashed "$RABBITMQ_PUBLISHER_PASSWORD")|" \
    -e "s|{reader}|$(hashed "$RABBITMQ_READER_PASSWORD")|" \
    /postbote/definitions.json > /etc/rabbitmq/definitions.json
cp /postbote/rabbitmq.conf /etc/rabbitmq/conf.d/20-postbote.conf
if [ -n "${RABBITMQ_JOIN:-}" ]; then
  # A node of a cluster joins the one that is named, at its first start; later it knows where it belongs.
  printf '%s\n' 'cluster_formation.peer_discovery_backend = classic_config' \
    "cluster_formation.classic_config.nodes.1 = $RABBITMQ_JOIN" \
    "cluster_formation.classic_config.nodes.2 = $RABBITMQ_NODENAME" >> /etc/rabbitmq/conf.d/20-postbote.conf
fi
(umask 077 && printf '%s' "$RABBITMQ_ERLANG_COOKIE" > /var/lib/rabbitmq/.erlang.cookie)
chown -R rabbitmq:rabbitmq /etc/rabbitmq /var/lib/rabbitmq
unset RABBITMQ_ERLANG_COOKIE
exec docker-entrypoint.sh rabbitmq-server
