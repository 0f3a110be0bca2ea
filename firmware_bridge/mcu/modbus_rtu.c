#include "modbus_rtu.h"

#include "port.h"
#include "tally.h"

#if defined(__GNUC__)
#define NOINLINE __attribute__((noinline)) /* flash */
#else
#define NOINLINE
#endif

#define BROADCAST 0u
#define READ_HOLDING 3u
#define READ_INPUT 4u
#define WRITE_ONE 6u
#define WRITE_MANY 16u
#define EXCEPTION 0x80u
#define MAX_READ 125u
#define MAX_WRITE 123u
#define SHORTEST 4u /* unit, function, CRC */

/* CRC-16/MODBUS; a table would cost 512 bytes */
static NOINLINE uint16_t crc_update(uint16_t crc, uint8_t byte)
{
    uint8_t bit;
    crc ^= byte;
    for (bit = 0; bit < 8u; bit++) {
        crc = (uint16_t)((crc & 1u) != 0u ? (crc >> 1) ^ 0xA001u : crc >> 1);
    }
    return crc;
}

static void listen(modbus_t *m)
{
    m->is_replying = false;
    m->length = 0;
    m->crc = 0xFFFFu;
}

void modbus_init(modbus_t *m, reject_t *reject, uint8_t unit, uint16_t silence_us)
{
    modbus_map_init(&m->map, reject);
    m->unit = unit;
    m->silence_us = silence_us;
    m->heard_us = reject_now_us(reject);
    m->bad_crc = 0;
    m->sent = 0;
    listen(m);
}

void modbus_on_byte(modbus_t *m, uint8_t byte, uint32_t now_us)
{
    if (!m->is_replying && m->length > 0u && now_us - m->heard_us >= m->silence_us) {
        tally(&m->bad_crc); /* a frame that nobody polled for in time: who sent it has given up */
        listen(m);
    }
    m->heard_us = now_us;
    if (m->is_replying) {
        return;
    }
    m->crc = crc_update(m->crc, byte);
    if (m->length < MODBUS_FRAME) {
        m->frame[m->length] = byte;
    }
    if (m->length <= MODBUS_FRAME) {
        m->length++;
    }
}

static uint16_t word_at(const modbus_t *m, uint8_t at)
{
    return (uint16_t)((uint16_t)(m->frame[at] << 8) | m->frame[at + 1u]);
}

static uint8_t obey_read(modbus_t *m)
{
    const uint16_t count = word_at(m, 4);
    uint8_t code;
    if (m->length != 8u || count < 1u || count > MAX_READ) {
        return MODBUS_ILLEGAL_VALUE;
    }
    code = modbus_map_read(&m->map, word_at(m, 2), count, m->frame + MODBUS_REPLY_HEAD);
    m->frame[2] = (uint8_t)(2u * count);
    m->length = (uint8_t)(MODBUS_REPLY_HEAD + 2u * (count <= MODBUS_MAX_WORDS ? count : 0u));
    return code;
}

static uint8_t obey_write(modbus_t *m, bool is_many)
{
    const uint16_t count = is_many ? word_at(m, 4) : 1u;
    const uint8_t head = is_many ? 7u : 4u;
    uint8_t code;
    if (is_many && (m->length < 9u || count < 1u || count > MAX_WRITE || m->frame[6] != 2u * count)) {
        return MODBUS_ILLEGAL_VALUE;
    }
    if (m->length > MODBUS_FRAME) {
        return MODBUS_ILLEGAL_ADDRESS; /* longer than any block */
    }
    if (m->length != head + 2u * count + 2u) {
        return MODBUS_ILLEGAL_VALUE;
    }
    code = modbus_map_write(&m->map, word_at(m, 2), count, m->frame + head);
    m->length = 6;
    return code;
}

static void answer(modbus_t *m, uint8_t code)
{
    uint16_t crc = 0xFFFFu;
    uint8_t at;
    if (code != 0u) {
        m->frame[1] |= EXCEPTION;
        m->frame[2] = code;
        m->length = 3;
    }
    for (at = 0; at < m->length; at++) {
        crc = crc_update(crc, m->frame[at]);
    }
    m->frame[m->length++] = (uint8_t)crc;
    m->frame[m->length++] = (uint8_t)(crc >> 8);
    m->sent = 0;
    m->is_replying = true;
}

static void obey(modbus_t *m)
{
    const uint8_t unit = m->frame[0], function = m->frame[1];
    uint8_t code = MODBUS_ILLEGAL_FUNCTION;
    if ((unit != m->unit && unit != BROADCAST) || (function & EXCEPTION) != 0u) {
        listen(m); /* another unit's, or what it said */
        return;
    }
    if (function == WRITE_ONE || function == WRITE_MANY) {
        code = obey_write(m, function == WRITE_MANY);
    } else if ((function == READ_HOLDING || function == READ_INPUT) && unit != BROADCAST) {
        code = obey_read(m);
    }
    if (unit == BROADCAST) {
        listen(m);
    } else {
        answer(m, code);
    }
}

static void send_reply(modbus_t *m)
{
    const uint8_t left = (uint8_t)(m->length - m->sent);
    uint8_t room = port_room(m->map.reject);
    room = room < left ? room : left;
    port_send(m->map.reject, m->frame + m->sent, room);
    m->sent = (uint8_t)(m->sent + room);
    if (m->sent == m->length) {
        listen(m);
    }
}

void modbus_poll(modbus_t *m, uint32_t now_us)
{
    modbus_map_poll(&m->map, now_us);
    if (m->is_replying) {
        send_reply(m);
    } else if (m->length > 0u && now_us - m->heard_us >= m->silence_us) {
        if (m->length >= SHORTEST && m->crc == 0u) {
            reject_at(m->map.reject, now_us);
            obey(m);
        } else {
            tally(&m->bad_crc);
            listen(m);
        }
    }
}
