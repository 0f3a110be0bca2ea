/* libFuzzer's door to the controller's core: any bytes on the wire, at any moment of a line that runs.
 *
 * The input is a program: what happens on the belt, raw bytes, and messages with a good checksum and the right boot id,
 * so that the fuzzer gets behind the CRC. Built by tools/fuzz with address and undefined-behaviour sanitizers, once for
 * frames and once with -DFUZZ_MODBUS. Besides memory, it holds the core to what must be true after any input at all.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "link.h"
#include "modbus_rtu.h"
#include "port.h"
#include "reject.h"

#define BOOT_ID 0x0101u
#define TX_ROOM 64u
#define UNIT 1u

static bool gate, healthy, has_saved;
static uint8_t room;
static reject_config_t saved;
static uint8_t ends[65536]; /* how often each part has ended; low half of its id */

static void must(bool is_true) { if (!is_true) abort(); }

void port_gate(reject_t *r, bool is_on, uint32_t part_id) { (void)r; must(is_on || part_id == 0); gate = is_on; }
void port_healthy(reject_t *r, bool is_on) { (void)r; healthy = is_on; }
void port_feed(reject_t *r, bool may_feed) { (void)r; (void)may_feed; }
void port_save(reject_t *r, const reject_config_t *config) { (void)r; saved = *config; has_saved = true; }
uint8_t port_room(reject_t *r) { (void)r; return room; }
void port_send(reject_t *r, const uint8_t *bytes, uint8_t length) {
    uint8_t at, sum = 0;
    (void)r;
    must(length <= room);
    for (at = 0; at < length; at++) sum = (uint8_t)(sum + bytes[at]); /* all of it is readable */
    room = (uint8_t)(room - length + (sum & 0u));
}
void port_event(reject_t *r, const reject_event_t *event) {
    (void)r;
    if (event->kind == EVENT_PASSED || event->kind == EVENT_FIRED || event->kind == EVENT_DEFAULTED) {
        must(event->part_id != 0 && ends[event->part_id & 0xFFFFu] == 0); /* one part, one outcome */
        ends[event->part_id & 0xFFFFu] = 1;
    }
}

typedef struct { const uint8_t *at, *end; } input_t;
static uint8_t next(input_t *in) { return in->at < in->end ? *in->at++ : 0; }
static uint16_t next16(input_t *in) { uint8_t low = next(in); return (uint16_t)(low | next(in) << 8); }

static void check(reject_t *r) {
    uint8_t flags = reject_flags(r);
    must(healthy == ((flags & FLAG_ARMED) != 0 && (flags & FLAG_TRIPPED) == 0));
    must(gate == ((flags & FLAG_GATE) != 0));
    must((uint16_t)(reject_next_event(r) - reject_oldest_event(r)) <= EVENT_SLOTS);
    must(!(flags & FLAG_ARMED) || has_saved);
}

#ifdef FUZZ_MODBUS
static modbus_t transport;
static void hear(uint8_t byte, uint32_t now_us) { modbus_on_byte(&transport, byte, now_us); }
static void poll(uint32_t now_us) { modbus_poll(&transport, now_us); }
static void tick(uint32_t now_us) { modbus_poll(&transport, now_us); }
static void message(input_t *in, uint32_t *now_us) { /* any request for our unit, with a good CRC */
    uint8_t length = (uint8_t)(next(in) % 100u), at, bit;
    uint16_t crc = 0xFFFFu;
    *now_us += 5000;
    poll(*now_us);
    for (at = 0; at < length; at++) {
        uint8_t byte = at == 0 ? (uint8_t)(next(in) % 3u ? UNIT : 0u) : next(in);
        crc ^= byte;
        for (bit = 0; bit < 8; bit++) crc = (uint16_t)((crc & 1u) ? (crc >> 1) ^ 0xA001u : crc >> 1);
        hear(byte, *now_us);
    }
    hear((uint8_t)crc, *now_us);
    hear((uint8_t)(crc >> 8), *now_us);
    *now_us += 5000;
    poll(*now_us);
}
#else
static link_t transport;
static void hear(uint8_t byte, uint32_t now_us) { link_on_byte(&transport, byte, now_us); }
static void poll(uint32_t now_us) { (void)now_us; link_poll(&transport); }
static void tick(uint32_t now_us) { link_on_time(&transport, now_us); }
static void message(input_t *in, uint32_t *now_us) { /* any payload to our boot, with a good CRC */
    uint8_t frame[FRAME_MAX_BYTES], length = (uint8_t)(1u + next(in) % MAX_PAYLOAD), at;
    for (at = 0; at < length; at++) frame[1 + at] = next(in);
    if (length > 3 && frame[1] != 1) { frame[2] = BOOT_ID & 0xFFu; frame[3] = BOOT_ID >> 8; }
    length = frames_close(frame, length);
    must(length <= FRAME_MAX_BYTES);
    for (at = 0; at < length; at++) hear(frame[at], *now_us);
}
#endif

static void power_on(reject_t *r, uint32_t now_us, uint32_t encoder, bool keeps) {
    reject_config_t config = saved;
    gate = healthy = false;
    memset(ends, 0, sizeof ends);
    memset(r, 0xA5, sizeof *r); /* RAM holds anything */
    memset(&transport, 0xA5, sizeof transport);
    if (!keeps) has_saved = false;
    reject_init(r, BOOT_ID, now_us, encoder, has_saved ? &config : NULL);
#ifdef FUZZ_MODBUS
    modbus_init(&transport, r, UNIT, MODBUS_SILENCE_US(115200u));
#else
    link_init(&transport, r);
#endif
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static reject_t r;
    input_t in = {data, data + size};
    uint32_t encoder = 0xFFFFF000u, now_us = 0xFFF00000u; /* both wrap soon */
    has_saved = false;
    room = TX_ROOM;
    power_on(&r, now_us, encoder, false);
    while (in.at < in.end) {
        uint8_t op = next(&in), count;
        switch (op & 7u) {
        case 0: for (count = (uint8_t)(op >> 3); count; count--) hear(next(&in), now_us); break;
        case 1: message(&in, &now_us); break;
        case 2: reject_on_eye(&r, encoder, now_us); break;
        case 3: encoder += next(&in); reject_on_encoder(&r, encoder, now_us); break;
        case 4: encoder += (uint32_t)(int32_t)(int16_t)next16(&in); reject_on_encoder(&r, encoder, now_us); break;
        case 5: now_us += 100u * (uint32_t)next16(&in); reject_on_time(&r, now_us); tick(now_us); break;
        case 6: if (op & 8u) reject_on_confirm(&r, encoder, now_us);
                else reject_on_inputs(&r, (uint8_t)(next(&in) & FLAGS_WIRED), now_us);
                break;
        default: if (op == 0xFFu) power_on(&r, now_us, encoder, true); else room = TX_ROOM; break;
        }
        poll(now_us);
        check(&r);
    }
    return 0;
}
