// What kafka_programs.py tells, with kafkajs: produce, consume, and a member of a group. NODE_PATH says
// where the library is.
'use strict';
const { Kafka, CompressionTypes, Partitioners, logLevel } = require('kafkajs');

const env = process.env;

function say(line) {
  process.stdout.write(line + '\n');
}

// The innermost error that has one of Kafka's names, else what the library calls it.
function fail(error) {
  let at = error;
  while (at && !at.type && at.cause) at = at.cause;
  say(`error ${(at && at.type) || error.name} ${String(error.message).replace(/\s+/g, ' ')}`);
  process.exit(1);
}

const kafka = new Kafka({
  clientId: 'kafkajs-test',
  brokers: [env.KAFKA_BROKER],
  logLevel: logLevel.NOTHING,
  retry: { retries: 3, initialRetryTime: 100 },
  sasl: env.KAFKA_USER && {
    mechanism: env.KAFKA_MECHANISM.toLowerCase(),
    username: env.KAFKA_USER,
    password: env.KAFKA_PASSWORD,
  },
});

async function produce(topic, count, prefix) {
  const idempotent = env.KAFKA_IDEMPOTENT === '1';
  const producer = kafka.producer({
    createPartitioner: Partitioners.DefaultPartitioner,
    idempotent,
    maxInFlightRequests: idempotent ? 1 : undefined,
  });
  const compression = env.KAFKA_CODEC === 'gzip' ? CompressionTypes.GZIP : CompressionTypes.None;
  await producer.connect();
  for (let at = 0; at < count; at += 100) {
    const messages = [];
    for (let i = at; i < Math.min(at + 100, count); i++) {
      messages.push({ key: `k${i % 7}`, value: `${prefix}${i}`, headers: { from: 'kafkajs' } });
    }
    for (const done of await producer.send({ topic, messages, compression, acks: -1 })) {
      if (done.errorCode) throw new Error(`error code ${done.errorCode}`);
    }
  }
  say(`done ${count}`);
  await producer.disconnect();
}

async function member(topic, group, count) {
  const consumer = kafka.consumer({
    groupId: group,
    sessionTimeout: 10000,
    heartbeatInterval: 500,
    rebalanceTimeout: 10000,
    maxWaitTimeInMs: 100,
  });
  let seen = 0;
  let stopping = false;
  const stop = async () => {
    if (stopping) return;
    stopping = true;
    await consumer.disconnect();
    process.exit(0);
  };
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) =>
    say(`assigned ${(payload.memberAssignment[topic] || []).join(' ')}`));
  consumer.on(consumer.events.CRASH, ({ payload }) => fail(payload.error));
  process.on('SIGTERM', stop);
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning: true });
  await consumer.run({
    autoCommitInterval: 200,
    partitionsConsumedConcurrently: 3,
    eachMessage: async ({ partition, message }) => {
      say(`record ${partition} ${message.offset} ${message.value}`);
      if (++seen === count) setImmediate(stop);
    },
  });
}

const [command, topic, ...rest] = process.argv.slice(2);
const commands = {
  produce: () => produce(topic, Number(rest[0]), rest[1]),
  consume: () => member(topic, rest[1], Number(rest[0])),
  group: () => member(topic, rest[0], Infinity),
};
commands[command]().catch(fail);
