#include "core/arena.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <new>
#include <stdexcept>

#include "core/sizes.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace adgan {

namespace {

// Floats between two regions: without, all would begin at the same set of the cache.
constexpr std::int64_t kGap = 16 * 9;

}  // namespace

Arena::Arena(std::int64_t floats) : size_(floats) {
  // Whole huge pages, where the system has them: an address then costs fewer page-table walks.
  constexpr std::size_t kPage = std::size_t{2} << 20;
  std::size_t bytes = static_cast<std::size_t>(aligned(floats) + 16) * sizeof(float);
  const bool large = bytes >= kPage;
  const std::size_t alignment = large ? kPage : 64;
  bytes = ceil_div(bytes, alignment) * alignment;
  memory_.reset(static_cast<float*>(std::aligned_alloc(alignment, bytes)));
  if (!memory_) throw std::bad_alloc();
#if defined(__linux__)
  if (large) madvise(memory_.get(), bytes, MADV_HUGEPAGE);  // a wish: whether it is granted does not matter
#endif
}

void Arena::Free::operator()(float* p) const { std::free(p); }

float* Arena::take(std::int64_t floats) {
  float* const p = memory_.get() + used_;
  used_ += taken(floats);
  if (used_ > size_) throw std::logic_error("the arena is too small");
  return p;
}

std::int64_t Arena::taken(std::int64_t floats) { return aligned(floats) + kGap; }

void Arena::poison() { std::fill_n(memory_.get(), size_, std::numeric_limits<float>::quiet_NaN()); }

}  // namespace adgan
