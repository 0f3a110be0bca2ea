/* The real ATmega328P image under simavr, on a belt: quadrature encoder, two light beams, inputs, outputs, UART0.
 *
 * Built as a shared library and driven from Python (firmware_bridge/sim/avr.py). Everything has the resolution of
 * one CPU cycle; nothing here knows of parts, frames or wall time. A place on the belt is a signed number of quarter
 * counts: encoder A is high in quarters 0 and 1, B in 1 and 2, so that A rises with B low on a belt that runs forward.
 */
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "avr_ioport.h"
#include "avr_uart.h"
#include "sim_avr.h"
#include "sim_elf.h"

#define EICRA 0x69
#define CPU_HZ 16000000u
#define RX_SLOTS 8192u  /* bytes on their way to the controller; what finds no slot is refused to the caller */
#define TX_SLOTS 8192u
#define LOG_SLOTS 8192u
#define BEAM_SLOTS 1024u
#define FORGET_QUARTERS 4096 /* no belt here turns back further */

enum { BEAM_EYE, BEAM_CONFIRM, BEAMS };
enum { LOG_EYE = 1, LOG_CONFIRM, LOG_GATE, LOG_HEALTHY, LOG_DRIVER, LOG_HEARD, LOG_CRASH };

/* Read by Python as "<qqqiBBxx". */
typedef struct {
  int64_t cycle;
  int64_t quarter;
  int64_t bytes;       /* received by the controller so far, with LOG_HEARD: up to and with this zero */
  int32_t since_edge;  /* cycles since the last rising edge of A */
  uint8_t what, level, spare[2];
} log_t;

typedef struct { int64_t from, to; } shadow_t;

typedef struct {
  avr_t *avr;
  avr_irq_t *uart_in;
  uint8_t outputs;
  uint8_t levels[3]; /* of inputs on ports B, C, D, as the world holds them */
  uint64_t quarter_cycles, last_rise, byte_cycles, next_rx, clock_base;
  int64_t quarter;
  int direction, is_ticking, can_take, has_crashed, is_encoder_lost;
  shadow_t shadows[BEAMS][BEAM_SLOTS];
  unsigned shadow_count[BEAMS];
  uint8_t rx[RX_SLOTS], tx[TX_SLOTS];
  unsigned rx_head, rx_tail, tx_head, tx_tail;
  int64_t heard, tx_lost, log_lost;
  log_t log[LOG_SLOTS];
  unsigned log_count;
} board_t;

static void note(board_t *b, uint8_t what, uint8_t level) {
  log_t *entry;
  if (b->log_count == LOG_SLOTS) { b->log_lost++; return; }
  entry = &b->log[b->log_count++];
  memset(entry, 0, sizeof *entry);
  entry->cycle = (int64_t)b->avr->cycle;
  entry->quarter = b->quarter;
  entry->bytes = b->heard;
  entry->since_edge = (int32_t)(b->avr->cycle - b->last_rise);
  entry->what = what;
  entry->level = level;
}

/* Pins. simavr puts an input to its pull-up whenever the firmware writes the port, so the level is told there too. */
static void tell_levels(board_t *b, char port) {
  avr_ioport_external_t external = {0};
  external.name = (unsigned)port & 0x7F;
  external.mask = 0xFF;
  external.value = b->levels[port - 'B'];
  avr_ioctl(b->avr, (uint32_t)AVR_IOCTL_IOPORT_SET_EXTERNAL(port), &external);
}

/* Before the firmware has chosen an edge, INT0 and INT1 mean "while low", and simavr 1.6 then goes on to raise the
 * interrupt whatever is chosen later. Such a fall is told as one that rising edges do not see. */
static void raise_pin(board_t *b, char port, int pin, int level) {
  uint8_t sense = 0, before = b->avr->data[EICRA];
  if (port == 'D' && (pin == 2 || pin == 3) && !level) sense = (uint8_t)(3u << (2 * (pin - 2)));
  if (sense && !(before & sense)) b->avr->data[EICRA] |= sense;
  avr_raise_irq(avr_io_getirq(b->avr, (uint32_t)AVR_IOCTL_IOPORT_GETIRQ(port), pin), (uint32_t)level);
  b->avr->data[EICRA] = before;
}

static void set_level(board_t *b, char port, int pin, int level) {
  uint8_t bit = (uint8_t)(1u << pin), *levels = &b->levels[port - 'B'];
  if (((*levels & bit) != 0) == (level != 0)) return;
  *levels = level ? *levels | bit : *levels & (uint8_t)~bit;
  tell_levels(b, port);
  raise_pin(b, port, pin, level != 0);
}

static void on_output(avr_irq_t *irq, uint32_t level, void *param) {
  board_t *b = param;
  static const uint8_t kinds[] = {LOG_GATE, LOG_HEALTHY, LOG_DRIVER};
  unsigned pin = irq->irq % 8;
  if (pin > 2 || ((b->outputs >> pin) & 1) == (level != 0)) return;
  b->outputs ^= (uint8_t)(1u << pin);
  note(b, kinds[pin], level != 0);
}

/* Belt. */
static int is_dark(board_t *b, int beam) {
  unsigned i, kept = 0, count = b->shadow_count[beam];
  shadow_t *s = b->shadows[beam];
  int dark = 0;
  if (count > 16 && s[0].to < b->quarter - FORGET_QUARTERS) { /* now and then */
    for (i = 0; i < count; i++) if (s[i].to >= b->quarter - FORGET_QUARTERS) s[kept++] = s[i];
    b->shadow_count[beam] = count = kept;
  }
  for (i = 0; i < count && !dark; i++) dark = s[i].from <= b->quarter && b->quarter < s[i].to;
  return dark;
}

static void look(board_t *b) {
  int eye = is_dark(b, BEAM_EYE), confirm = is_dark(b, BEAM_CONFIRM);
  if (eye != ((b->levels[2] >> 3) & 1)) { note(b, LOG_EYE, (uint8_t)eye); set_level(b, 'D', 3, eye); }
  if (confirm != ((b->levels[2] >> 4) & 1)) { note(b, LOG_CONFIRM, (uint8_t)confirm); set_level(b, 'D', 4, confirm); }
}

static void show_encoder(board_t *b) {
  if (b->is_encoder_lost) return;
  unsigned q = (unsigned)b->quarter & 3u;
  int a = q < 2, before = (b->levels[2] >> 2) & 1;
  if (a && !before) b->last_rise = b->avr->cycle;
  set_level(b, 'D', 5, q == 1 || q == 2);
  set_level(b, 'D', 2, a);
}

static avr_cycle_count_t on_quarter(avr_t *avr, avr_cycle_count_t when, void *param) {
  board_t *b = param;
  (void)avr;
  if (!b->direction) { b->is_ticking = 0; return 0; }
  b->quarter += b->direction;
  show_encoder(b);
  look(b);
  return when + b->quarter_cycles;
}

/* UART. */
static void on_uart(avr_irq_t *irq, uint32_t value, void *param) {
  board_t *b = param;
  unsigned next = (b->tx_head + 1) % TX_SLOTS;
  (void)irq;
  if (next == b->tx_tail) { b->tx_lost++; return; }
  b->tx[b->tx_head] = (uint8_t)value;
  b->tx_head = next;
}
static void on_xon(avr_irq_t *irq, uint32_t value, void *param) { (void)irq; (void)value; ((board_t *)param)->can_take = 1; }
static void on_xoff(avr_irq_t *irq, uint32_t value, void *param) { (void)irq; (void)value; ((board_t *)param)->can_take = 0; }

static void hear(board_t *b) {
  uint8_t byte;
  if (b->rx_tail == b->rx_head || !b->can_take || b->avr->cycle < b->next_rx) return;
  byte = b->rx[b->rx_tail];
  b->rx_tail = (b->rx_tail + 1) % RX_SLOTS;
  b->next_rx = b->avr->cycle + b->byte_cycles;
  b->heard++;
  avr_raise_irq(b->uart_in, byte);
  if (!byte) note(b, LOG_HEARD, 0);
}

static void no_sleep(avr_t *avr, avr_cycle_count_t cycles) { (void)avr; (void)cycles; } /* the caller paces, not simavr */
static void log_errors(avr_t *avr, const int level, const char *format, va_list arguments) {
  (void)avr;
  if (level <= LOG_ERROR) vfprintf(stderr, format, arguments);
}

static void connect_uart(board_t *b) {
  uint32_t flags = 0;
  avr_ioctl(b->avr, (uint32_t)AVR_IOCTL_UART_GET_FLAGS('0'), &flags);
  flags &= ~(uint32_t)(AVR_UART_FLAG_STDIO | AVR_UART_FLAG_POOL_SLEEP);
  avr_ioctl(b->avr, (uint32_t)AVR_IOCTL_UART_SET_FLAGS('0'), &flags);
#define UART_IRQ(which) avr_io_getirq(b->avr, (uint32_t)AVR_IOCTL_UART_GETIRQ('0'), which)
  b->uart_in = UART_IRQ(UART_IRQ_INPUT);
  avr_irq_register_notify(UART_IRQ(UART_IRQ_OUTPUT), on_uart, b);
  avr_irq_register_notify(UART_IRQ(UART_IRQ_OUT_XON), on_xon, b);
  avr_irq_register_notify(UART_IRQ(UART_IRQ_OUT_XOFF), on_xoff, b);
}

/* After power-on and after each reset the pins have their levels before the first instruction. */
static void connect_inputs(board_t *b) {
  static const char ports[] = "CD";
  int p, pin;
  for (p = 0; p < 2; p++) {
    tell_levels(b, ports[p]);
    for (pin = 0; pin < 8; pin++) {
      avr_irq_t *irq = avr_io_getirq(b->avr, (uint32_t)AVR_IOCTL_IOPORT_GETIRQ(ports[p]), pin);
      int level = (b->levels[ports[p] - 'B'] >> pin) & 1;
      if (ports[p] == 'D' && pin < 2) continue; /* the UART's own */
      irq->value = (uint32_t)!level; /* simavr tells changes only */
      raise_pin(b, ports[p], pin, level);
    }
  }
}

board_t *board_new(const char *elf, uint32_t baud) {
  elf_firmware_t firmware;
  board_t *b = calloc(1, sizeof *b);
  int pin;
  if (!b) return NULL;
  avr_global_logger_set(log_errors);
  memset(&firmware, 0, sizeof firmware);
  if (elf_read_firmware(elf, &firmware) || !(b->avr = avr_make_mcu_by_name("atmega328p"))) { free(b); return NULL; }
  avr_init(b->avr);
  b->avr->log = LOG_ERROR;
  firmware.frequency = CPU_HZ;
  avr_load_firmware(b->avr, &firmware);
  b->avr->sleep = no_sleep;
  b->byte_cycles = 10u * CPU_HZ / baud + 1;
  b->can_take = 1;
  b->levels[1] = 0xFF; /* straps open: pull-ups */
  b->levels[2] = 0xC4; /* air and bin good, encoder A as at quarter 0 */
  connect_uart(b);
  for (pin = 0; pin < 3; pin++)
    avr_irq_register_notify(avr_io_getirq(b->avr, (uint32_t)AVR_IOCTL_IOPORT_GETIRQ('B'), pin), on_output, b);
  connect_inputs(b);
  return b;
}

void board_free(board_t *b) {
  avr_terminate(b->avr);
  free(b->avr);
  free(b);
}

/* Signed quarter counts a second; 0 stops the belt. */
void board_speed(board_t *b, int32_t quarters_per_s) {
  b->direction = (quarters_per_s > 0) - (quarters_per_s < 0);
  if (!b->direction) return;
  b->quarter_cycles = CPU_HZ / (uint32_t)abs(quarters_per_s);
  if (!b->is_ticking) {
    b->is_ticking = 1;
    avr_cycle_timer_register(b->avr, b->quarter_cycles, on_quarter, b);
  }
}

int board_shadow(board_t *b, int beam, int64_t from, int64_t to) {
  if (beam < 0 || beam >= BEAMS || b->shadow_count[beam] == BEAM_SLOTS) return 0;
  b->shadows[beam][b->shadow_count[beam]++] = (shadow_t){from, to};
  return 1;
}

/* The belt moves on, its encoder stands still until it is found again. */
void board_lose_encoder(board_t *b, int is_lost) {
  b->is_encoder_lost = is_lost;
  show_encoder(b);
}

void board_pin(board_t *b, char port, int pin, int level) { set_level(b, port, pin, level); }

/* Runs for so many cycles. 0 when the CPU has crashed or stopped. */
int board_run(board_t *b, uint64_t cycles) {
  avr_cycle_count_t until = b->avr->cycle + cycles;
  while (b->avr->cycle < until && !b->has_crashed) {
    int state = avr_run(b->avr);
    if (state == cpu_Done || state == cpu_Crashed) { b->has_crashed = 1; note(b, LOG_CRASH, (uint8_t)state); }
    hear(b);
  }
  return !b->has_crashed;
}

/* The reset line: RAM and registers are lost, flash and EEPROM are not, the world goes on. */
void board_reset(board_t *b) {
  int pin;
  uint8_t sram_fill = 0xA5; /* nobody may count on what RAM holds */
  for (pin = 0; pin < 3; pin++) {
    avr_irq_t *irq = avr_io_getirq(b->avr, (uint32_t)AVR_IOCTL_IOPORT_GETIRQ('B'), pin);
    if (irq->value) avr_raise_irq(irq, 0); /* pins float, drivers have pull-downs */
  }
  avr_cycle_timer_cancel(b->avr, on_quarter, b);
  avr_reset(b->avr);
  memset(b->avr->data + 0x100, sram_fill, 2048);
  b->can_take = 1;
  b->is_ticking = 0;
  connect_inputs(b);
  if (b->direction) {
    b->is_ticking = 1;
    avr_cycle_timer_register(b->avr, b->quarter_cycles, on_quarter, b);
  }
}

int board_put(board_t *b, const uint8_t *bytes, int count) {
  int i;
  for (i = 0; i < count; i++) {
    unsigned next = (b->rx_head + 1) % RX_SLOTS;
    if (next == b->rx_tail) break;
    b->rx[b->rx_head] = bytes[i];
    b->rx_head = next;
  }
  return i;
}

int board_take(board_t *b, uint8_t *bytes, int room) {
  int n = 0;
  while (n < room && b->tx_tail != b->tx_head) {
    bytes[n++] = b->tx[b->tx_tail];
    b->tx_tail = (b->tx_tail + 1) % TX_SLOTS;
  }
  return n;
}

int board_log(board_t *b, log_t *entries, int room) {
  int n = (int)b->log_count < room ? (int)b->log_count : room;
  memcpy(entries, b->log, (size_t)n * sizeof *entries);
  memmove(b->log, b->log + n, (b->log_count - (unsigned)n) * sizeof *entries);
  b->log_count -= (unsigned)n;
  return n;
}

int64_t board_quarter(const board_t *b) { return b->quarter; }
int64_t board_cycle(const board_t *b) { return (int64_t)b->avr->cycle; }
int64_t board_lost(const board_t *b) { return b->tx_lost + b->log_lost; }
