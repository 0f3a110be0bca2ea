/* The port for an ATmega328P at 16 MHz (5 V; fuses: brown-out at 4.3 V, external crystal).
 *
 *   PD0/PD1  UART0, 115200 8N1            PB0  gate: the solenoid's driver, high is on
 *   PD2      encoder A                    PB1  healthy, to the machine's safety chain, high is healthy
 *   PD5      encoder B                    PB2  RS-485 driver enable, high while sending
 *   PD3      photo-eye, high is a part    PC0  strap, read at reset: low is Modbus RTU (image with both transports)
 *   PD4      confirm sensor, high is one  PC1  strap, read at reset: low is an encoder with one channel (tie B low)
 *   PD6      air pressure, high is good   PD7  reject bin, high is good
 *   PB3      feed, high while parts may be fed, low asks the feeder for a controlled hold
 *
 * Inputs on port D have pull-downs on the board, so that a broken wire reads low; outputs have pull-downs too, so that
 * a controller in reset is not healthy and its gate is closed.
 *
 * Interrupts only count, latch, and move the gate at counts that the main loop has put up before (reject_plan), so that
 * the gate follows the encoder's edge in microseconds whatever the main loop does. The main loop then takes the same
 * counts in the same order through the core. What both touch is read and written with interrupts off.
 */
#include <avr/eeprom.h>
#include <avr/interrupt.h>
#include <avr/io.h>
#include <avr/wdt.h>
#include <stddef.h>
#include <string.h>
#include <util/atomic.h>

#include "frames.h"
#include "link.h"
#include "modbus_rtu.h"
#include "port.h"
#include "wrap.h"

/* Which transports the image has; each alone fits 8 kB. */
#define FRAMES_ONLY 1
#define MODBUS_ONLY 2
#define BY_STRAP 3
#ifndef TRANSPORT
#define TRANSPORT BY_STRAP
#endif

#define BAUD 115200UL
#define MODBUS_UNIT 1u
#define TICK_US 1000
#define ENCODER_A _BV(2)
#define PHOTO_EYE _BV(3)
#define CONFIRM _BV(4)
#define ENCODER_B _BV(5)
#define AIR_GOOD _BV(6)
#define BIN_GOOD _BV(7)
#define GATE _BV(0)
#define HEALTHY _BV(1)
#define DRIVER _BV(2)
#define FEED _BV(3)
#define STRAP_MODBUS _BV(0)
#define STRAP_ONE_CHANNEL _BV(1)

/* Rings: one writes `head`, the other `tail`, both single bytes. */
#if TRANSPORT == MODBUS_ONLY
#define RX_BYTES 32u
#define TX_BYTES 64u /* a reply is sent piece by piece */
#else
#define RX_BYTES 64u  /* 5.5 ms of bytes; the main loop turns in a fraction of one */
#define TX_BYTES 128u /* five events and an answer; what finds no room waits in the core's log */
#endif
#define LATCHES 4u    /* breaks of the eye, and pulses of the confirm sensor, until the main loop takes them */

typedef struct {
    uint32_t encoder;
    uint32_t time_us;
    bool is_eye;
} latch_t;

typedef struct { /* the main loop's orders to the encoder's interrupt */
    uint32_t on_at, off_at;
    bool has_on, has_off;
} orders_t;

static volatile uint8_t rx_ring[RX_BYTES], rx_head, rx_tail;
static volatile uint8_t tx_ring[TX_BYTES], tx_head, tx_tail;
static volatile latch_t latches[LATCHES];
static volatile uint8_t latch_head, latch_tail;
static volatile uint32_t encoder_count;
static volatile uint32_t timer_laps;
static orders_t orders; /* with interrupts off */

static reject_t core;
static link_t frames_wire; /* is_modbus() says which; an image for one transport has only one */
static modbus_t modbus_wire;
static bool is_strap_low;

typedef struct {
    uint16_t last_boot;
    reject_config_t values;
    uint16_t crc;
} kept_t;
static kept_t kept EEMEM;
static uint8_t to_save; /* bytes of `kept.values` and its CRC still to be written */

static bool is_modbus(void)
{
    return TRANSPORT == MODBUS_ONLY || (TRANSPORT == BY_STRAP && is_strap_low);
}

/* Time */

/* Microseconds; with interrupts off. Timer 1 counts halves of them and laps in 33 ms. */
static uint32_t time_now(void)
{
    uint16_t halves = TCNT1;
    uint32_t laps = timer_laps;
    if ((TIFR1 & _BV(TOV1)) && halves < 0x8000u) {
        laps++;
    }
    return laps << 15 | halves >> 1;
}

static uint32_t now_us(void)
{
    uint32_t now;
    ATOMIC_BLOCK(ATOMIC_RESTORESTATE)
    {
        now = time_now();
    }
    return now;
}

ISR(TIMER1_OVF_vect)
{
    timer_laps++;
}

/* Belt */

/* Both edges of A while B is low: an encoder that trembles on one edge counts it up and down again. */
ISR(INT0_vect)
{
    const uint8_t pins = PIND;
    if (pins & ENCODER_B) {
        return;
    }
    uint32_t count = encoder_count;
    if (!(pins & ENCODER_A)) {
        encoder_count = count - 1u;
        return;
    }
    encoder_count = ++count;
    if (orders.has_on && count == orders.on_at) {
        PORTB |= GATE;
        orders.has_on = false;
        orders.has_off = false; /* a pulse within a pulse: its end is ordered when the main loop has been here */
    } else if (orders.has_off && count == orders.off_at) {
        PORTB &= (uint8_t)~GATE;
        orders.has_off = false;
    }
}

static void latch(bool is_eye)
{
    const uint8_t head = latch_head;
    const uint8_t next = (uint8_t)((head + 1u) % LATCHES);
    if (next == latch_tail) {
        return; /* chatter: its first break is among those that wait */
    }
    latches[head].encoder = encoder_count;
    latches[head].time_us = time_now();
    latches[head].is_eye = is_eye;
    latch_head = next;
}

ISR(INT1_vect)
{
    latch(true);
}

ISR(PCINT2_vect)
{
    if (PIND & CONFIRM) {
        latch(false);
    }
}

/* Everything due up to this count, at its own count and in order, as if the main loop had been called there. */
static void belt_to(uint32_t count)
{
    const uint32_t now = now_us();
    uint32_t due;
    while (reject_next_encoder(&core, &due) && since32(count, due) >= 0) {
        const uint32_t at = reject_encoder(&core);
        reject_on_encoder(&core, since32(due, at) < 0 ? at : due, now);
    }
    if (count != reject_encoder(&core)) {
        reject_on_encoder(&core, count, now);
    }
}

static uint32_t count_now(void)
{
    uint32_t count;
    ATOMIC_BLOCK(ATOMIC_RESTORESTATE)
    {
        count = encoder_count;
    }
    return count;
}

/* What was latched, at its count; then the belt as it stands. Counts read before the latches are taken come after
 * none of them. */
static void belt_turn(void)
{
    const uint32_t count = count_now();
    uint8_t left = (uint8_t)((uint8_t)(latch_head - latch_tail) % LATCHES);
    for (; left; left--) {
        const uint8_t tail = latch_tail;
        const uint32_t encoder = latches[tail].encoder;
        const uint32_t time_us = latches[tail].time_us;
        const bool is_eye = latches[tail].is_eye;
        latch_tail = (uint8_t)((tail + 1u) % LATCHES);
        belt_to(encoder);
        if (is_eye) {
            reject_on_eye(&core, encoder, time_us);
        } else {
            reject_on_confirm(&core, encoder, time_us);
        }
    }
    belt_to(count);
}

/* Put up orders for the interrupt, and the gate as the core has it: only when nothing is due that the interrupt may
 * have done already. */
static void order_gate(void)
{
    for (;;) {
        uint32_t due;
        const bool has_due = reject_next_encoder(&core, &due);
        reject_plan_t plan;
        reject_plan(&core, &plan);
        bool is_done = false;
        ATOMIC_BLOCK(ATOMIC_RESTORESTATE)
        {
            if (!has_due || since32(encoder_count, due) < 0) {
                orders.on_at = plan.on_at;
                orders.off_at = plan.off_at;
                orders.has_on = plan.has_on;
                orders.has_off = plan.has_off;
                if (plan.has_off) {
                    PORTB |= GATE;
                } else {
                    PORTB &= (uint8_t)~GATE;
                }
                is_done = true;
            }
        }
        if (is_done) {
            return;
        }
        belt_to(count_now());
    }
}

/* UART */

ISR(USART_RX_vect)
{
    const uint8_t byte = UDR0;
    const uint8_t next = (uint8_t)((rx_head + 1u) % RX_BYTES);
    if (next != rx_tail) {
        rx_ring[rx_head] = byte;
        rx_head = next;
    }
}

ISR(USART_UDRE_vect)
{
    const uint8_t tail = tx_tail;
    if (tail == tx_head) {
        UCSR0B &= (uint8_t)~_BV(UDRIE0);
        return;
    }
    UDR0 = tx_ring[tail];
    tx_tail = (uint8_t)((tail + 1u) % TX_BYTES);
}

ISR(USART_TX_vect) /* the last bit is out */
{
    if (tx_tail == tx_head) {
        PORTB &= (uint8_t)~DRIVER;
    }
}

uint8_t port_room(reject_t *r)
{
    (void)r;
    return (uint8_t)((uint8_t)(tx_tail - tx_head - 1) % TX_BYTES);
}

void port_send(reject_t *r, const uint8_t *bytes, uint8_t length)
{
    (void)r;
    for (; length; length--) { /* the caller has asked for the room */
        tx_ring[tx_head] = *bytes++;
        tx_head = (uint8_t)((tx_head + 1u) % TX_BYTES);
    }
    ATOMIC_BLOCK(ATOMIC_RESTORESTATE)
    {
        PORTB |= DRIVER;
        UCSR0B |= _BV(UDRIE0);
    }
}

static void hear(void)
{
    while (rx_tail != rx_head) {
        const uint8_t byte = rx_ring[rx_tail];
        rx_tail = (uint8_t)((rx_tail + 1u) % RX_BYTES);
        if (is_modbus()) {
            modbus_on_byte(&modbus_wire, byte, now_us());
        } else {
            link_on_byte(&frames_wire, byte, now_us());
        }
    }
}

/* Outputs and what is kept */

void port_gate(reject_t *r, bool is_on, uint32_t part_id) /* order_gate does it: off and on at one count is no edge */
{
    (void)r;
    (void)is_on;
    (void)part_id;
}

void port_healthy(reject_t *r, bool is_on)
{
    (void)r;
    if (is_on) {
        PORTB |= HEALTHY;
    } else {
        PORTB &= (uint8_t)~HEALTHY;
    }
}

void port_feed(reject_t *r, bool may_feed)
{
    (void)r;
    if (may_feed) {
        PORTB |= FEED;
    } else {
        PORTB &= (uint8_t)~FEED;
    }
}

void port_event(reject_t *r, const reject_event_t *event)
{
    (void)r;
    (void)event;
}

/* The version makes a configuration of another release invalid. */
static uint16_t config_crc(const reject_config_t *config)
{
    return frames_crc16((const uint8_t *)config, sizeof *config) ^ PROTOCOL_VERSION;
}

void port_save(reject_t *r, const reject_config_t *config)
{
    (void)r;
    (void)config;
    to_save = sizeof(reject_config_t) + sizeof(uint16_t);
}

/* A byte at a time, 3.4 ms each: the belt goes on meanwhile. A reset in between leaves a bad CRC, so no configuration. */
static void save_turn(void)
{
    if (!to_save || !eeprom_is_ready()) {
        return;
    }
    uint8_t bytes[sizeof(reject_config_t) + sizeof(uint16_t)];
    memcpy(bytes, &core.config, sizeof core.config);
    put16(bytes + sizeof core.config, config_crc(&core.config));
    to_save--;
    eeprom_update_byte((uint8_t *)&kept.values + to_save, bytes[to_save]);
}

static bool load_config(reject_config_t *config)
{
    eeprom_read_block(config, &kept.values, sizeof *config);
    return config_crc(config) == eeprom_read_word(&kept.crc);
}

/* Another one at each start: one write of a cell that stands 100 000 of them. */
static uint16_t next_boot_id(void)
{
    uint16_t boot_id = (uint16_t)(eeprom_read_word(&kept.last_boot) + 1u);
    boot_id = boot_id ? boot_id : 1u;
    eeprom_update_word(&kept.last_boot, boot_id);
    return boot_id;
}

/* Start */

/* Before anything else: after a reset by the watchdog it runs on, at its shortest. GPIOR0 keeps why we were reset
 * (brown-out among it) for a debugger. */
void note_reset(void) __attribute__((naked, used, section(".init3")));
void note_reset(void)
{
    GPIOR0 = MCUSR;
    MCUSR = 0;
    wdt_disable();
}

static void start_pins(void)
{
    PORTB = FEED;
    DDRB = GATE | HEALTHY | DRIVER | FEED;
    PORTC = STRAP_MODBUS | STRAP_ONE_CHANNEL; /* pull-ups */
    TCCR1B = _BV(CS11);                       /* 2 MHz */
    TIMSK1 = _BV(TOIE1);
    UCSR0A = _BV(U2X0);
    UBRR0 = (uint16_t)((F_CPU + BAUD * 4UL) / (BAUD * 8UL) - 1UL);
    UCSR0B = _BV(RXEN0) | _BV(TXEN0) | _BV(RXCIE0) | _BV(TXCIE0);
}

static void start_belt(void)
{
    const uint8_t rising = _BV(ISC01) | _BV(ISC00), both = _BV(ISC00);
    EICRA = (uint8_t)(((PINC & STRAP_ONE_CHANNEL) ? both : rising) | _BV(ISC11) | _BV(ISC10));
    EIFR = _BV(INTF0) | _BV(INTF1);
    EIMSK = _BV(INT0) | _BV(INT1);
    PCMSK2 = _BV(PCINT20);
    PCICR = _BV(PCIE2);
}

static void start_core(void)
{
    reject_config_t config;
    const bool has_config = load_config(&config);
    reject_init(&core, next_boot_id(), 0, 0, has_config ? &config : NULL);
    is_strap_low = !(PINC & STRAP_MODBUS);
    if (is_modbus()) {
        modbus_init(&modbus_wire, &core, MODBUS_UNIT, MODBUS_SILENCE_US(BAUD));
    } else {
        link_init(&frames_wire, &core);
    }
}

static void tick(void)
{
    const uint8_t pins = PIND;
    uint8_t faults = 0;
    if (!(pins & AIR_GOOD)) {
        faults |= FLAG_AIR_LOW;
    }
    if (!(pins & BIN_GOOD)) {
        faults |= FLAG_BIN_FULL;
    }
    reject_on_inputs(&core, faults, now_us());
    reject_on_time(&core, now_us());
    if (!is_modbus()) {
        link_on_time(&frames_wire, now_us());
    }
}

int main(void)
{
    start_pins();
    start_core();
    start_belt();
    wdt_enable(WDTO_60MS);
    sei();
    uint32_t tick_us = 0;
    for (;;) {
        wdt_reset();
        belt_turn();
        hear();
        if (since32(now_us(), tick_us) >= TICK_US) {
            tick_us += TICK_US;
            tick();
        }
        if (is_modbus()) {
            modbus_poll(&modbus_wire, now_us());
        } else {
            link_poll(&frames_wire);
        }
        if (reject_has_new_plan(&core)) {
            order_gate();
        }
        save_turn();
    }
}
