#include "reject.h"

#include <string.h>

#include "port.h"
#include "wrap.h"

#define MIN_WATCHDOG_MS 50u
#define MAX_WATCHDOG_MS 10000u
#define MAX_OFFSET_COUNTS 0x8000u
#define CHATTER_US 20000       /* an eye that bounces breaks again within it; real parts at 50 a second do not */
#define LEVEL_US 10000u        /* a wired input stands this long before it is believed: contacts of pressure switches */
#define DITHER_COUNTS 2        /* an encoder at rest trembles by this much */
#define REVERSE_COUNTS 16      /* and a belt that stops springs back by that */
#define FAR_COUNTS 0x40000000u /* where no part has been */
#define MAX_ID_SPAN 0x8000u    /* ids in table and log are told apart by their lower halves */

enum { /* of a part, in the order in which it goes through them */
    STAGE_OPEN = 0,    /* a verdict may still come */
    STAGE_DECIDED = 1, /* past the decide point */
    STAGE_FIRED = 2,   /* waiting for the confirm sensor */
    STAGE_SETTLED = 3,
    STAGE_MASK = 3,
    IS_DEFAULT = 4, /* beside the stage: not the host's verdict */
};

void tally(uint16_t *count)
{
    if (*count != UINT16_MAX) {
        (*count)++;
    }
}

static uint8_t stage_of(const reject_part_t *part)
{
    return part->stage & STAGE_MASK;
}

static void to_stage(reject_t *r, reject_part_t *part, uint8_t stage)
{
    part->stage = (uint8_t)((part->stage & IS_DEFAULT) | stage);
    r->is_due_known = false;
}

/* The index of a place in a ring; % would be a division, and these are walked while the belt moves. */
static uint8_t in_ring(uint8_t first, uint8_t place, uint8_t slots)
{
    const uint8_t index = (uint8_t)(first + place);
    return index >= slots ? (uint8_t)(index - slots) : index;
}

static reject_part_t *part_at(reject_t *r, uint8_t place)
{
    return &r->parts[in_ring(r->first_part, place, PART_SLOTS)];
}

/* The id with this lower half: table and log hold none that is further back than MAX_ID_SPAN. */
static uint32_t full_id(const reject_t *r, uint16_t id)
{
    return r->next_part - (uint16_t)(r->next_part - id);
}

/* Log */

static void log_event(reject_t *r, uint8_t kind, uint16_t id)
{
    if (r->event_count == EVENT_SLOTS) { /* the newest say more; the host sees the hole in the sequence */
        r->first_event = in_ring(r->first_event, 1, EVENT_SLOTS);
        r->event_count--;
        tally(&r->counts.overwritten);
    }
    reject_slot_t *slot = &r->events[in_ring(r->first_event, r->event_count, EVENT_SLOTS)];
    slot->kind = kind;
    slot->id = id;
    slot->encoder = r->encoder;
    slot->time_us = r->now_us;
    r->event_count++;
    r->next_event++;
    reject_event_t event;
    (void)reject_event(r, (uint16_t)(r->next_event - 1u), &event);
    port_event(r, &event);
}

bool reject_event(const reject_t *r, uint16_t seq, reject_event_t *event)
{
    const uint16_t place = (uint16_t)(seq - reject_oldest_event(r));
    if (place >= r->event_count) {
        return false;
    }
    const reject_slot_t *slot = &r->events[in_ring(r->first_event, (uint8_t)place, EVENT_SLOTS)];
    event->seq = seq;
    event->kind = slot->kind;
    const bool has_part = slot->kind != EVENT_WATCHDOG && slot->kind != EVENT_INPUT;
    event->part_id = has_part ? full_id(r, slot->id) : slot->id;
    event->encoder = slot->encoder;
    event->time_us = slot->time_us;
    return true;
}

uint8_t reject_ack(reject_t *r, uint16_t seq)
{
    const int16_t behind = since16(seq, reject_oldest_event(r));
    uint8_t count = 0;
    if (behind >= 0) {
        count = behind >= r->event_count ? r->event_count : (uint8_t)(behind + 1);
    }
    r->first_event = in_ring(r->first_event, count, EVENT_SLOTS);
    r->event_count = (uint8_t)(r->event_count - count);
    return count;
}

/* Gate */

static void open_gate(reject_t *r, uint32_t part_id, uint32_t until)
{
    if (!(r->flags & FLAG_GATE)) {
        r->gate_on_us = r->now_us;
        r->gate_until = until;
    } else if (since32(until, r->gate_until) > 0) {
        r->gate_until = until;
    }
    r->flags |= FLAG_GATE;
    r->is_due_known = false;
    port_gate(r, true, part_id);
}

static void close_gate(reject_t *r)
{
    r->flags &= (uint8_t)~FLAG_GATE;
    r->is_due_known = false;
    port_gate(r, false, 0);
}

/* Hold the gate open from count `from` until the part that is at the eye now is through it. */
static void plan_sweep(reject_t *r, uint32_t from)
{
    if (r->config.default_verdict == VERDICT_ACCEPT) {
        return;
    }
    if (!r->has_sweep) {
        r->sweep_from = from;
    }
    r->has_sweep = true;
    r->sweep_until = r->encoder + r->config.fire_counts + r->config.pulse_counts;
    r->is_due_known = false;
}

/* Parts */

static void decide(reject_t *r, reject_part_t *part, bool may_believe)
{
    to_stage(r, part, STAGE_DECIDED);
    if (part->verdict == VERDICT_NONE || !may_believe) {
        part->verdict = r->config.default_verdict;
        part->stage |= IS_DEFAULT;
    }
}

static void at_gate(reject_t *r, reject_part_t *part)
{
    const bool opens = part->verdict != VERDICT_ACCEPT; /* whatever else it may hold, it is not let through */
    if (!opens && (r->flags & FLAG_GATE)) { /* open for others: say what happens to the part, not what was wanted */
        part->verdict = VERDICT_REJECT;
        part->stage |= IS_DEFAULT;
    }
    const bool is_removed = part->verdict != VERDICT_ACCEPT;
    to_stage(r, part, is_removed && r->config.confirm_counts ? STAGE_FIRED : STAGE_SETTLED);
    if (opens) { /* the others' pulse grows for nobody else: that would reach for the next good part */
        open_gate(r, full_id(r, part->id), r->encoder + r->config.pulse_counts);
    }
    log_event(r, part->stage & IS_DEFAULT ? EVENT_DEFAULTED : is_removed ? EVENT_FIRED : EVENT_PASSED, part->id);
}

/* The count from the eye at which something happens to a part that is not settled. */
static uint32_t due_after(const reject_t *r, const reject_part_t *part)
{
    if (stage_of(part) == STAGE_OPEN) {
        return r->config.decide_counts;
    }
    const uint32_t at_fire = r->config.fire_counts;
    return stage_of(part) == STAGE_DECIDED ? at_fire : at_fire + r->config.confirm_counts;
}

static void move(reject_t *r, reject_part_t *part)
{
    while (stage_of(part) != STAGE_SETTLED &&
           since32(r->encoder, part->encoder) >= (int32_t)due_after(r, part)) {
        if (stage_of(part) == STAGE_OPEN) {
            decide(r, part, (r->flags & FLAG_ARMED) != 0);
        } else if (stage_of(part) == STAGE_DECIDED) {
            at_gate(r, part);
        } else {
            to_stage(r, part, STAGE_SETTLED);
            log_event(r, EVENT_UNCONFIRMED, part->id);
        }
    }
}

/* Arming */

static void disarm(reject_t *r)
{
    r->flags &= (uint8_t)~(FLAG_ARMED | FLAG_HEALTHY);
    port_healthy(r, false);
    if (!r->is_configured) {
        return;
    }
    for (uint8_t place = 0; place < r->part_count; place++) {
        reject_part_t *part = part_at(r, place);
        if (stage_of(part) == STAGE_OPEN) {
            decide(r, part, false);
        }
    }
}

static void trip(reject_t *r)
{
    if (r->flags & FLAG_ARMED) {
        tally(&r->counts.trips);
    }
    r->flags |= FLAG_TRIPPED;
    disarm(r);
}

/* A blocking flag comes or goes. */
static void set_flag(reject_t *r, uint8_t flag, bool is_on)
{
    if (((r->flags & flag) != 0) == is_on) {
        return;
    }
    r->flags ^= flag;
    if (is_on && (r->flags & FLAG_ARMED)) {
        trip(r);
    }
    log_event(r, EVENT_INPUT, r->flags);
}

static void set_inputs(reject_t *r)
{
    const uint8_t faults = r->is_configured ? r->faults & r->config.inputs : 0;
    set_flag(r, FLAG_BIN_FULL, (faults & FLAG_BIN_FULL) != 0);
    set_flag(r, FLAG_AIR_LOW, (faults & FLAG_AIR_LOW) != 0);
}

/* The belt stands at this count. */
static void belt_at(reject_t *r, uint32_t encoder, uint32_t now_us)
{
    r->now_us = now_us;
    if (encoder == r->encoder) {
        return;
    }
    r->encoder = encoder;
    set_flag(r, FLAG_ENCODER_LOST, false);
    const int32_t behind = since32(r->furthest, encoder);
    if (behind <= 0) {
        r->furthest = encoder;
        set_flag(r, FLAG_BELT_REVERSED, false);
    } else if (behind > REVERSE_COUNTS) {
        set_flag(r, FLAG_BELT_REVERSED, true);
    }
}

/* Eye */

/* Whether a break at this count is a part, and not an eye that bounces, or parts that the belt brings back. */
static bool is_part(reject_t *r)
{
    if (r->encoder == r->break_at && since32(r->now_us, r->break_us) > CHATTER_US &&
        (r->flags & FLAG_ARMED)) { /* a belt that is not armed may well stand */
        set_flag(r, FLAG_ENCODER_LOST, true);
        plan_sweep(r, r->encoder + 1u); /* the parts in between are further than their counts will say */
    }
    r->break_at = r->encoder;
    r->break_us = r->now_us;
    if ((r->flags & FLAG_ENCODER_LOST) || since32(r->furthest, r->encoder) > DITHER_COUNTS) {
        return false;
    }
    uint32_t moved = r->encoder - r->minted_at;
    if (since32(r->encoder, r->minted_at) < 0) {
        moved = 0u - moved;
    }
    return moved >= r->config.debounce_counts;
}

static void overflow(reject_t *r, uint16_t id)
{
    tally(&r->counts.overflows);
    trip(r);
    log_event(r, EVENT_OVERFLOW, id);
    plan_sweep(r, r->encoder + r->config.fire_counts);
}

/* Settled parts stay while there is room, so that late verdicts hear the truth. Before the first configuration there is
 * no gate, and nothing that can be said of a part. */
static bool has_slot(reject_t *r)
{
    if (r->part_count == PART_SLOTS && (stage_of(part_at(r, 0)) == STAGE_SETTLED || !r->is_configured)) {
        r->first_part = in_ring(r->first_part, 1, PART_SLOTS);
        r->part_count--;
    }
    return r->part_count < PART_SLOTS;
}

void reject_on_eye(reject_t *r, uint32_t encoder, uint32_t now_us)
{
    belt_at(r, encoder, now_us);
    const uint16_t id = (uint16_t)r->next_part;
    const bool is_new = is_part(r);
    const bool is_followed = is_new && has_slot(r);
    if (!is_new || (!is_followed && (uint16_t)(id - part_at(r, 0)->id) >= MAX_ID_SPAN)) {
        tally(&r->counts.bounces);
        return;
    }
    r->minted_at = encoder;
    r->next_part++;
    if (r->next_part == 0) {
        r->next_part = 1;
    }
    if (!is_followed) {
        overflow(r, id);
        return;
    }
    reject_part_t *part = part_at(r, r->part_count++);
    part->id = id;
    part->encoder = encoder;
    part->verdict = VERDICT_NONE;
    part->stage = STAGE_OPEN;
    r->is_due_known = false;
    log_event(r, EVENT_TRIGGER, id);
}

/* Belt */

static void sooner(reject_t *r, uint32_t count)
{
    if (!r->has_due || since32(count, r->due) < 0) {
        r->due = count;
        r->has_due = true;
    }
}

static void find_due(reject_t *r)
{
    r->is_due_known = true;
    r->is_plan_new = true;
    r->has_due = false;
    r->has_fire = false;
    if (r->flags & FLAG_GATE) {
        sooner(r, r->gate_until);
    }
    if (r->has_sweep) {
        sooner(r, r->sweep_from);
    }
    if (!r->is_configured) {
        return;
    }
    for (uint8_t place = 0; place < r->part_count; place++) {
        const reject_part_t *part = part_at(r, place);
        if (stage_of(part) == STAGE_SETTLED) {
            continue;
        }
        const uint32_t count = part->encoder + due_after(r, part);
        sooner(r, count);
        if (stage_of(part) == STAGE_DECIDED && part->verdict != VERDICT_ACCEPT &&
            (!r->has_fire || since32(count, r->fire) < 0)) {
            r->fire = count;
            r->has_fire = true;
        }
    }
}

bool reject_next_encoder(reject_t *r, uint32_t *encoder)
{
    if (!r->is_due_known) {
        find_due(r);
    }
    *encoder = r->due;
    return r->has_due;
}

void reject_on_encoder(reject_t *r, uint32_t encoder, uint32_t now_us)
{
    belt_at(r, encoder, now_us);
    uint32_t due;
    if (!reject_next_encoder(r, &due) || since32(encoder, due) < 0) {
        return;
    }
    if ((r->flags & FLAG_GATE) && since32(encoder, r->gate_until) >= 0) {
        close_gate(r);
    }
    if (r->has_sweep && since32(encoder, r->sweep_from) >= 0) {
        r->has_sweep = false;
        open_gate(r, 0, r->sweep_until);
    }
    for (uint8_t place = 0; place < r->part_count; place++) {
        move(r, part_at(r, place));
    }
}

void reject_on_confirm(reject_t *r, uint32_t encoder, uint32_t now_us)
{
    belt_at(r, encoder, now_us);
    for (uint8_t place = 0; place < r->part_count; place++) { /* the oldest pulse that waits for one */
        reject_part_t *part = part_at(r, place);
        if (stage_of(part) == STAGE_FIRED) {
            to_stage(r, part, STAGE_SETTLED);
            log_event(r, EVENT_CONFIRMED, part->id);
            return;
        }
    }
}

void reject_plan(reject_t *r, reject_plan_t *plan)
{
    uint32_t due;
    (void)reject_next_encoder(r, &due);
    r->is_plan_new = false;
    plan->has_off = (r->flags & FLAG_GATE) != 0;
    plan->off_at = r->gate_until;
    plan->has_on = r->has_fire;
    plan->on_at = r->fire;
    if (r->has_sweep && (!r->has_fire || since32(r->sweep_from, r->fire) < 0)) {
        plan->has_on = true;
        plan->on_at = r->sweep_from;
    }
}

/* Time and wires */

void reject_on_inputs(reject_t *r, uint8_t faults, uint32_t now_us)
{
    r->now_us = now_us;
    faults &= FLAGS_WIRED;
    if (faults != r->seen_faults) {
        r->seen_faults = faults;
        r->levels_us = (uint16_t)now_us;
    }
    if (faults != r->faults && (uint16_t)((uint16_t)now_us - r->levels_us) >= LEVEL_US) {
        r->faults = r->seen_faults;
        set_inputs(r);
    }
}

void reject_on_time(reject_t *r, uint32_t now_us)
{
    r->now_us = now_us;
    if ((r->flags & FLAG_ARMED) && since32(now_us, r->beat_us) > (int32_t)r->config.watchdog_ms * 1000) {
        trip(r);
        log_event(r, EVENT_WATCHDOG, 0);
    }
    if ((r->flags & FLAG_GATE) && since32(now_us, r->gate_on_us) >= (int32_t)r->config.max_on_ms * 1000) {
        close_gate(r);
    }
}

/* For a transport */

void reject_at(reject_t *r, uint32_t now_us)
{
    r->now_us = now_us;
}

uint8_t reject_verdict(reject_t *r, uint32_t part_id, uint8_t verdict, uint8_t *in_force)
{
    *in_force = VERDICT_NONE;
    for (uint8_t place = 0; place < r->part_count; place++) {
        reject_part_t *part = part_at(r, place);
        if (full_id(r, part->id) != part_id) {
            continue;
        }
        *in_force = part->verdict;
        if (part->stage & IS_DEFAULT) {
            return ANSWER_LATE;
        }
        if (part->verdict != VERDICT_NONE) {
            return part->verdict == verdict ? ANSWER_DUP : ANSWER_CONFLICT;
        }
        if (!(r->flags & FLAG_ARMED) || (verdict != VERDICT_ACCEPT && verdict != VERDICT_REJECT)) {
            return ANSWER_NOT_ARMED;
        }
        part->verdict = verdict;
        *in_force = verdict;
        return ANSWER_STORED;
    }
    return part_id != 0 && since32(r->next_part, part_id) > 0 ? ANSWER_LATE : ANSWER_UNKNOWN;
}

static bool is_sane(const reject_config_t *config)
{
    return config->decide_counts >= 1 && config->decide_counts <= config->fire_counts &&
           config->fire_counts <= MAX_OFFSET_COUNTS && config->pulse_counts >= 1 &&
           config->confirm_counts <= MAX_OFFSET_COUNTS && config->watchdog_ms >= MIN_WATCHDOG_MS &&
           config->watchdog_ms <= MAX_WATCHDOG_MS && config->max_on_ms >= 1 &&
           (config->default_verdict == VERDICT_ACCEPT || config->default_verdict == VERDICT_REJECT) &&
           !(config->inputs & (uint8_t)~FLAGS_WIRED);
}

uint8_t reject_configure(reject_t *r, const reject_config_t *config)
{
    if (r->is_configured && memcmp(config, &r->config, sizeof *config) == 0) {
        return STATUS_OK;
    }
    if (r->flags & FLAG_ARMED) {
        return STATUS_ARMED;
    }
    if (!is_sane(config)) {
        return STATUS_BAD_VALUE;
    }
    r->config = *config;
    r->is_configured = true;
    r->is_due_known = false;
    set_inputs(r);
    port_save(r, config);
    return STATUS_OK;
}

bool reject_config(const reject_t *r, reject_config_t *config)
{
    *config = r->config;
    return r->is_configured;
}

uint8_t reject_arm(reject_t *r, bool is_on)
{
    if (!is_on) {
        disarm(r);
        set_flag(r, FLAG_ENCODER_LOST, false); /* somebody looked; a belt that is stopped by us gives no counts */
        return STATUS_OK;
    }
    if (!r->is_configured) {
        return STATUS_NOT_CONFIGURED;
    }
    if (r->flags & FLAGS_BLOCKING) {
        return STATUS_BLOCKED;
    }
    r->flags = (uint8_t)((r->flags & ~FLAG_TRIPPED) | FLAG_ARMED | FLAG_HEALTHY);
    r->beat_us = r->now_us;
    port_healthy(r, true);
    return STATUS_OK;
}

void reject_hold(reject_t *r, bool is_wanted)
{
    if (r->is_held != is_wanted) {
        r->is_held = is_wanted;
        port_feed(r, !is_wanted);
    }
}

void reject_beat(reject_t *r)
{
    r->beat_us = r->now_us;
}

uint8_t reject_flags(const reject_t *r)
{
    return r->flags;
}

void reject_init(reject_t *r, uint16_t boot_id, uint32_t now_us, uint32_t encoder, const reject_config_t *saved)
{
    memset(r, 0, sizeof *r);
    r->boot_id = boot_id;
    r->next_part = 1;
    r->now_us = now_us;
    r->encoder = encoder;
    r->furthest = encoder;
    r->minted_at = encoder - FAR_COUNTS;
    r->break_at = r->minted_at;
    r->faults = FLAGS_WIRED; /* until the wires have been read: unknown is a fault */
    r->seen_faults = FLAGS_WIRED;
    if (saved && is_sane(saved)) {
        r->config = *saved;
        r->is_configured = true;
        plan_sweep(r, encoder + 1u);
        r->flags = r->faults & saved->inputs;
    }
}
