// Connects with MQTT.js, subscribes, publishes at each QoS and waits for all of it. Arguments: URL, file of the authority or "".
'use strict'
const fs = require('fs')
const mqtt = require('mqtt')
const [url, ca] = process.argv.slice(2)
const sizes = [0, 1, 200, 70000]
const rounds = [4, 5]

async function round (protocolVersion) {
  const client = await mqtt.connectAsync(url, {
    protocolVersion, clientId: 'js' + protocolVersion, reconnectPeriod: 0, connectTimeout: 5000, ca: ca ? fs.readFileSync(ca) : undefined
  })
  const got = new Map()
  client.on('message', (topic, payload, packet) => got.set(topic, `${payload.length} ${packet.qos}`))
  await client.subscribeAsync('js/#', { qos: 2 })
  for (const size of sizes) {
    for (const qos of [0, 1, 2]) {
      await client.publishAsync(`js/${size}/${qos}`, Buffer.alloc(size, 'x'), { qos })
    }
  }
  while (got.size < sizes.length * 3) await new Promise(resolve => setImmediate(resolve))
  for (const size of sizes) {
    for (const qos of [0, 1, 2]) {
      if (got.get(`js/${size}/${qos}`) !== `${size} ${qos}`) throw new Error(`js/${size}/${qos}: ${got.get(`js/${size}/${qos}`)}`)
    }
  }
  await client.endAsync()
}

(async () => {
  for (const v of rounds) await round(v)
  console.log('ok')
})().catch(err => { console.error(err); process.exit(1) })
