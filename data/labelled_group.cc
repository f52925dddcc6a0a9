#include "data/labelled_group.h"

namespace plural::data {

std::size_t LabelledSequence::PredictedTokens() const {
  if (positive) return response.size();
  std::size_t last = response.size();
  while (last > 1 && unlikelihood[last - 1] == 0.0) --last;
  return last;
}

}  // namespace plural::data
