// Does with MQTT.js what clients do, with each version, and tells its server the outcome.
'use strict'
/* global mqtt */
const broker = new URLSearchParams(location.search).get('broker')

// open connects a client that keeps what arrives.
async function open (version, clientId, options = {}) {
  const client = mqtt.connect(broker, {
    protocolVersion: version, protocolId: version === 3 ? 'MQIsdp' : 'MQTT', clientId, reconnectPeriod: 0, connectTimeout: 10000, ...options
  })
  const c = { client, seen: [] }
  client.on('message', (topic, payload, packet) => c.seen.push(`${topic} ${payload.length} ${packet.qos} ${packet.retain}`))
  c.present = await new Promise((resolve, reject) => {
    client.on('connect', ack => resolve(ack.sessionPresent))
    client.on('error', reject)
    client.on('close', () => reject(new Error('not connected')))
  })
  return c
}

// next waits for the next message.
async function next (c, want) {
  for (let n = 0; c.seen.length === 0; n++) {
    if (n === 1000) throw new Error(`"${want}" does not come`)
    await new Promise(resolve => setTimeout(resolve, 10))
  }
  const got = c.seen.shift()
  if (got !== want) throw new Error(`"${got}" comes, not "${want}"`)
}

async function round (version) {
  const place = `page${version}`
  const lasting = { clean: false, properties: version === 5 ? { sessionExpiryInterval: 60 } : undefined }
  let sub = await open(version, `${place}-sub`, lasting)
  const [{ qos }] = await sub.client.subscribeAsync(`${place}/#`, { qos: 2 })
  if (qos !== 2) throw new Error(`granted ${qos}`)
  const pub = await open(version, `${place}-pub`, { will: { topic: `${place}/will`, payload: 'gone', qos: 1, retain: false } })
  for (const size of [0, 1, 125, 126, 70000]) {
    for (const qos of [0, 1, 2]) {
      await pub.client.publishAsync(`${place}/${size}`, new Uint8Array(size), { qos })
      await next(sub, `${place}/${size} ${size} ${qos} false`)
    }
  }

  await pub.client.publishAsync(`${place}/state`, 'on', { qos: 1, retain: true })
  await next(sub, `${place}/state 2 1 false`)
  const late = await open(version, `${place}-late`)
  await late.client.subscribeAsync(`${place}/state`, { qos: 1 })
  await next(late, `${place}/state 2 1 true`)
  await pub.client.publishAsync(`${place}/state`, '', { qos: 1, retain: true })
  await next(late, `${place}/state 0 1 false`)
  await next(sub, `${place}/state 0 1 false`)
  await late.client.endAsync()

  await sub.client.endAsync()
  for (const size of [1, 2, 3]) await pub.client.publishAsync(`${place}/away`, 'x'.repeat(size), { qos: 1 })
  sub = await open(version, `${place}-sub`, lasting)
  if (version !== 3 && !sub.present) throw new Error('the session is not there')
  for (const size of [1, 2, 3]) await next(sub, `${place}/away ${size} 1 false`)

  pub.client.end(true) // without DISCONNECT
  await next(sub, `${place}/will 4 1 false`)
  await sub.client.endAsync()
}

async function main () {
  for (const version of [3, 4, 5]) await round(version)
  return 'ok'
}

main().catch(err => err.message).then(outcome => fetch('/outcome', { method: 'POST', body: outcome }))
