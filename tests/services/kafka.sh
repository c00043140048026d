#!/usr/bin/env bash
# A throwaway Kafka broker for the contract tests: `kafka.sh start FOLDER` prints its bootstrap server, `kafka.sh stop
# FOLDER` ends it. Needs Java 17 and, for the first start, Maven (Debian: default-jre-headless, maven): the broker's jars
# are taken from Maven's repository once and kept in MULLE_KAFKA_JARS (default: ~/.cache/mulle-tests/kafka).
# One node without ZooKeeper, loopback only, free ports.
set -euo pipefail
action=${1:?start or stop} folder=${2:?folder}
. "$(dirname "${BASH_SOURCE[0]}")/server.sh"
version=4.1.0
jars=${MULLE_KAFKA_JARS:-$HOME/.cache/mulle-tests/kafka}/$version

fetch_jars() {
  needs mvn "Maven (Debian: maven)"
  mkdir -p "$(dirname "$jars")"
  local work
  work=$(mktemp -d "$jars.XXXXXX")
  cat >"$work/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>mulle</groupId><artifactId>broker</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.24.3</version></dependency>
  </dependencies>
</project>
POM
  if ! mvn -q -B -f "$work/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$work/jars" >"$work/log" 2>&1; then
    cat "$work/log" >&2
    echo "the broker's jars could not be fetched by mvn" >&2
    exit 2
  fi
  # Whole or not at all; another start may have put them there meanwhile.
  mv -T "$work/jars" "$jars" 2>/dev/null || [ -d "$jars" ]
  rm -rf "$work"
}

configure() {
  cat >"$folder/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$2
listeners=PLAINTEXT://127.0.0.1:$1,CONTROLLER://127.0.0.1:$2
advertised.listeners=PLAINTEXT://127.0.0.1:$1
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs=$folder/data
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
PROPERTIES
  # Errors, and the one line that tells that the broker answers.
  cat >"$folder/log4j2.properties" <<'PROPERTIES'
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d %p %c: %m%n
rootLogger.level=error
rootLogger.appenderRef.out.ref=out
logger.server.name=kafka.server.KafkaRaftServer
logger.server.level=info
PROPERTIES
}

case $action in
start)
  needs java "Java 17 (Debian: default-jre-headless)"
  [ -d "$jars" ] || fetch_jars
  mkdir -p "$folder"
  port=$(free_port)
  configure "$port" "$(free_port)"
  java=(java -cp "$jars/*" "-Dlog4j2.configurationFile=$folder/log4j2.properties" -XX:+UseSerialGC -XX:TieredStopAtLevel=1)
  "${java[@]}" -Xmx256m kafka.tools.StorageTool format -t 4L6g3nShT-eMCtK--X86sw -c "$folder/server.properties" >"$folder/format.log" 2>&1 ||
    { cat "$folder/format.log" >&2; exit 1; }
  launch "${java[@]}" -Xmx512m kafka.Kafka "$folder/server.properties"
  await 90 grep -q "Kafka Server started" "$folder/server.log"
  echo "127.0.0.1:$port"
  ;;
stop) halt ;;
*) echo "start or stop" >&2; exit 2 ;;
esac
