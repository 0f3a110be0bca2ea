#include "modbus_map.h"

#include <stddef.h>
#include <string.h>

#include "tally.h"

#define HEARTBEAT_US 100000u
#define SETUP_COUNTS 6u /* registers that stand as in reject_config_t, decide_counts to max_on_ms */

_Static_assert(CONTROL_TRIPPED == FLAG_TRIPPED && CONTROL_HEALTHY == FLAG_HEALTHY && CONTROL_GATE == FLAG_GATE &&
                   CONTROL_ENABLE == FLAG_ARMED && CONTROL_BIN_FULL == FLAG_BIN_FULL &&
                   CONTROL_AIR_LOW == FLAG_AIR_LOW && CONTROL_ENCODER_LOST == FLAG_ENCODER_LOST &&
                   CONTROL_BELT_REVERSED == FLAG_BELT_REVERSED,
               "the flags are handed through");
_Static_assert(offsetof(reject_config_t, decide_counts) == 0u &&
                   offsetof(reject_config_t, max_on_ms) == 2u * (SETUP_COUNTS - 1u) &&
                   SETUP_MAX_ON_MS == SETUP_DECIDE_COUNTS + SETUP_COUNTS - 1u,
               "the setup block and the configuration have the same order");
_Static_assert(PLC_HEARTBEAT == 1u && PLC_PART_ID == 4u && PLC_ENCODER == 6u && PLC_RESULT_ACK == 8u &&
                   PLC_MAP_VERSION == 10u && PLC_ENCODER_NOW == 12u && PLC_OUTCOME_SEQ == 14u &&
                   SETUP_DECIDE_COUNTS == 2u && SETUP_DEFAULT_VERDICT == 8u && SETUP_MAP_ID_END == 11u,
               "the blocks are laid out in the order of the table");
_Static_assert(RESULT_STORED == ANSWER_STORED + 1u && RESULT_DUP == ANSWER_DUP + 1u && RESULT_LATE == ANSWER_LATE + 1u &&
                   RESULT_UNKNOWN == ANSWER_UNKNOWN + 1u && RESULT_CONFLICT == ANSWER_CONFLICT + 1u,
               "answers are handed through, one higher");

typedef enum { NOWHERE, IN_BOX, IN_PLC, IN_SETUP } place_t;

/* Writes one register and returns where the next one goes. */
static uint8_t *put16(uint8_t *to, uint16_t value)
{
    to[0] = (uint8_t)(value >> 8);
    to[1] = (uint8_t)value;
    return to + 2;
}

static uint8_t *put32(uint8_t *to, uint32_t value)
{
    return put16(put16(to, (uint16_t)(value >> 16)), (uint16_t)value);
}

static void encode(uint8_t *words, const uint16_t *values, uint8_t count)
{
    while (count-- > 0u) {
        words = put16(words, *values++);
    }
}

static void decode(uint16_t *values, const uint8_t *words, uint8_t count)
{
    for (; count > 0u; count--, words += 2) {
        *values++ = (uint16_t)((uint16_t)(words[0] << 8) | words[1]);
    }
}

/* Which block all of `count` registers from `address` are in; `at` is the first one's offset there. */
static place_t find(uint16_t address, uint16_t count, uint8_t *at)
{
    place_t place = IN_BOX;
    uint8_t size = BOX_SIZE;
    if (address >= SETUP_BASE) {
        address = (uint16_t)(address - SETUP_BASE);
        place = IN_SETUP;
        size = SETUP_SIZE;
    } else if (address >= PLC_BASE) {
        address = (uint16_t)(address - PLC_BASE);
        place = IN_PLC;
        size = PLC_SIZE;
    }
    *at = (uint8_t)address;
    return address < size && count <= (uint8_t)(size - address) ? place : NOWHERE;
}

static uint8_t verdict_of(uint16_t code)
{
    if (code == VERDICT_CODE_ACCEPT) {
        return VERDICT_ACCEPT;
    }
    return code == VERDICT_CODE_REJECT ? VERDICT_REJECT : VERDICT_NONE;
}

static uint16_t code_of(uint8_t verdict)
{
    if (verdict == VERDICT_ACCEPT) {
        return VERDICT_CODE_ACCEPT;
    }
    return verdict == VERDICT_REJECT ? VERDICT_CODE_REJECT : VERDICT_CODE_NONE;
}

void modbus_map_init(modbus_map_t *m, reject_t *reject)
{
    memset(m, 0, sizeof *m);
    m->reject = reject;
    m->beat_us = reject_now_us(reject);
    m->is_tripped = true; /* the box shall know that this is a new start before it is believed */
}

static void notice_trip(modbus_map_t *m)
{
    if (m->is_enabled && (reject_flags(m->reject) & FLAG_ARMED) == 0u) {
        m->is_enabled = false;
        m->is_tripped = true;
    }
}

void modbus_map_poll(modbus_map_t *m, uint32_t now_us)
{
    notice_trip(m);
    if (now_us - m->beat_us >= HEARTBEAT_US) {
        m->beat_us = now_us;
        m->heartbeat++;
    }
}

/* What is read */

static void read_rings(const reject_t *r, uint8_t *block, uint16_t trigger_seq, uint16_t outcome_seq)
{
    uint16_t seq = reject_next_event(r);
    uint8_t triggers = 0, outcomes = 0;
    reject_event_t event;
    while (reject_event(r, --seq, &event)) {
        if ((event.kind == EVENT_TRIGGER || event.kind == EVENT_OVERFLOW) && triggers < MAP_RING) {
            if (triggers == 0u) {
                (void)put32(block + 2u * PLC_ENCODER, event.encoder);
            }
            (void)put16(put16(block + 2u * PLC_TRIGGERS + 4u * (trigger_seq % MAP_RING), (uint16_t)event.part_id),
                        (uint16_t)event.encoder);
            trigger_seq--;
            triggers++;
        }
        if (event.kind != EVENT_TRIGGER && outcomes < MAP_RING) {
            (void)put16(put16(put16(block + 2u * PLC_OUTCOMES + 6u * (outcome_seq % MAP_RING), (uint16_t)event.part_id),
                              event.kind),
                        (uint16_t)event.encoder);
            outcome_seq--;
            outcomes++;
        }
    }
}

static void read_plc(modbus_map_t *m, uint8_t *block)
{
    const reject_t *r = m->reject;
    const uint32_t part_id = reject_next_part(r) - 1u;
    const uint16_t trigger_seq = (uint16_t)part_id;
    /* every event but TRIGGER, and a part makes either TRIGGER or OVERFLOW */
    const uint16_t outcome_seq = (uint16_t)(reject_next_event(r) - trigger_seq + r->counts.overflows);
    uint8_t control;
    uint8_t *at = put16(block, MAP_ID);
    notice_trip(m);
    control = (uint8_t)(reject_flags(r) & ~(FLAG_ARMED | FLAG_TRIPPED));
    control |= (uint8_t)((m->is_enabled ? CONTROL_ENABLE : 0u) | (m->is_tripped ? CONTROL_TRIPPED : 0u));
    at = put16(at, m->heartbeat);
    at = put16(at, control);
    at = put16(at, trigger_seq);
    at = put32(at, part_id) + 4u; /* the encoder of the newest trigger comes with the rings */
    at = put16(at, m->result_ack);
    at = put16(at, m->result_answer);
    at = put16(at, MAP_VERSION);
    at = put16(at, reject_boot_id(r));
    at = put32(at, reject_encoder(r));
    (void)put16(at, outcome_seq);
    (void)put16(block + 2u * PLC_MAP_ID_END, MAP_ID);
    read_rings(r, block, trigger_seq, outcome_seq);
}

static void setup_values(const modbus_map_t *m, uint16_t *values)
{
    reject_config_t config;
    if (!reject_config(m->reject, &config)) {
        memset(&config, 0, sizeof config);
    }
    memcpy(values + SETUP_DECIDE_COUNTS, &config, SETUP_COUNTS * sizeof values[0]);
    values[SETUP_MAP_ID] = MAP_ID;
    values[SETUP_MAP_VERSION] = MAP_VERSION;
    values[SETUP_DEFAULT_VERDICT] = code_of(config.default_verdict);
    values[SETUP_DEBOUNCE_COUNTS] = config.debounce_counts;
    values[SETUP_INPUTS_MASK] = config.inputs;
    values[SETUP_MAP_ID_END] = MAP_ID;
}

uint8_t modbus_map_read(modbus_map_t *m, uint16_t address, uint16_t count, uint8_t *words)
{
    uint8_t first;
    const place_t place = find(address, count, &first);
    memset(words, 0, 2u * MODBUS_MAX_WORDS);
    if (place == IN_PLC) {
        read_plc(m, words);
    } else if (place == IN_SETUP) {
        uint16_t values[SETUP_SIZE];
        setup_values(m, values);
        encode(words, values, SETUP_SIZE);
    } else if (place == IN_BOX) {
        encode(words, m->box, BOX_SIZE);
    } else {
        return MODBUS_ILLEGAL_ADDRESS;
    }
    memmove(words, words + 2u * first, 2u * count); /* it was laid out whole; what was asked for goes to the front */
    return 0;
}

/* What is written */

static void take_result(modbus_map_t *m)
{
    const uint16_t seq = m->box[BOX_RESULT_SEQ];
    const uint8_t verdict = verdict_of(m->box[BOX_VERDICT]);
    if (m->has_result && seq == m->result_ack) {
        return;
    }
    if (m->has_result && verdict != VERDICT_NONE) {
        uint8_t in_force;
        const uint32_t part_id = (uint32_t)m->box[BOX_PART_ID] << 16 | m->box[BOX_PART_ID + 1u];
        const uint8_t answer = reject_verdict(m->reject, part_id, verdict, &in_force);
        if (answer == ANSWER_NOT_ARMED) {
            return; /* it stands in the box block, and is tried again with the next write */
        }
        m->result_answer = (uint8_t)(answer + 1u);
    } else {
        m->result_answer = RESULT_NOT_TOLD;
    }
    m->has_result = true;
    m->result_ack = seq;
}

static void take_armed(modbus_map_t *m)
{
    notice_trip(m);
    if ((m->box[BOX_STATUS] & BOX_STATUS_ARMED) == 0u) {
        if (m->is_tripped || m->is_enabled) {
            (void)reject_arm(m->reject, false); /* also for a trip: somebody looked */
        }
        m->is_tripped = false;
        m->is_enabled = false;
    } else if (!m->is_tripped && !m->is_enabled) {
        m->is_enabled = reject_arm(m->reject, true) == STATUS_OK;
    }
}

static void take_box(modbus_map_t *m, uint16_t heartbeat_before)
{
    if (m->box[BOX_MAP_ID] != MAP_ID || m->box[BOX_MAP_ID_END] != MAP_ID || m->box[BOX_MAP_VERSION] != MAP_VERSION) {
        tally(&m->torn);
        return;
    }
    if (m->box[BOX_HEARTBEAT] != heartbeat_before) {
        reject_beat(m->reject);
        reject_hold(m->reject, (m->box[BOX_STATUS] & BOX_STATUS_HOLD) != 0u);
    }
    take_armed(m);
    take_result(m);
}

static uint8_t take_setup(modbus_map_t *m, const uint16_t *values)
{
    reject_config_t config;
    uint8_t status;
    if (values[SETUP_MAP_ID] != MAP_ID || values[SETUP_MAP_ID_END] != MAP_ID ||
        values[SETUP_MAP_VERSION] != MAP_VERSION || values[SETUP_INPUTS_MASK] > 0xFFu) {
        return MODBUS_ILLEGAL_VALUE;
    }
    memset(&config, 0, sizeof config);
    memcpy(&config, values + SETUP_DECIDE_COUNTS, SETUP_COUNTS * sizeof values[0]);
    config.default_verdict = verdict_of(values[SETUP_DEFAULT_VERDICT]);
    config.debounce_counts = values[SETUP_DEBOUNCE_COUNTS];
    config.inputs = (uint8_t)values[SETUP_INPUTS_MASK];
    status = reject_configure(m->reject, &config);
    if (status == STATUS_OK) {
        return 0;
    }
    return status == STATUS_ARMED ? MODBUS_BUSY : MODBUS_ILLEGAL_VALUE;
}

uint8_t modbus_map_write(modbus_map_t *m, uint16_t address, uint16_t count, const uint8_t *words)
{
    uint8_t first;
    const place_t place = find(address, count, &first);
    if (place == IN_BOX) {
        const uint16_t heartbeat = m->box[BOX_HEARTBEAT];
        decode(m->box + first, words, (uint8_t)count);
        take_box(m, heartbeat);
        return 0;
    }
    if (place == IN_SETUP) { /* registers that are not written stay as they are */
        uint16_t values[SETUP_SIZE];
        setup_values(m, values);
        decode(values + first, words, (uint8_t)count);
        return take_setup(m, values);
    }
    return MODBUS_ILLEGAL_ADDRESS; /* the PLC block is ours */
}
